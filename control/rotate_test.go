package control

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRotateKey(t *testing.T) {
	agent := steady()
	agent.rotate = func(_ context.Context, without []string, progress func(KeyStep)) (string, error) {
		if !slices.Equal(without, []string{"pbx3", "pbx4"}) {
			return "", errors.New("key rotate: pbx3 is not heard;\nnothing was changed")
		}
		progress(KeyStep{"pbx1", "accepts the new key", "3a1f90b2"})
		progress(KeyStep{"pbx1", "seals with\nthe new key", "3a1f90b2"})
		return "key rotated: 3a1f90b2 on pbx1", nil
	}
	_, _, dir := start(t, agent)
	var seen []KeyStep
	text, err := NewClient(dir).RotateKey(ctxFor(t), []string{"pbx3", "pbx4"}, func(k KeyStep) { seen = append(seen, k) })
	if err != nil || text != "key rotated: 3a1f90b2 on pbx1" {
		t.Errorf("%q, %v", text, err)
	}
	if d := cmp.Diff([]KeyStep{{"pbx1", "accepts the new key", "3a1f90b2"}, {"pbx1", "seals with the new key", "3a1f90b2"}}, seen); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if _, err := NewClient(dir).RotateKey(ctxFor(t), nil, nil); err == nil || err.Error() != "key rotate: pbx3 is not heard; nothing was changed" {
		t.Errorf("%v", err)
	}
	for _, without := range [][]string{{"a\nb"}, make([]string, maxWithout+1)} {
		if _, err := NewClient(dir).roundTrip(ctxFor(t), http.MethodPost, pathRotate, url.Values{"without": without}, nil); err == nil {
			t.Errorf("%q is accepted", without)
		}
	}
}

// TestRotateKeyIsCancelled: the rotation ends when its client goes away. If no agent
// answers, the client finds out at once.
func TestRotateKeyIsCancelled(t *testing.T) {
	begun, ended := make(chan struct{}), make(chan struct{})
	agent := steady()
	agent.rotate = func(ctx context.Context, _ []string, progress func(KeyStep)) (string, error) {
		progress(KeyStep{Node: "pbx1"})
		close(begun)
		<-ctx.Done()
		close(ended)
		return "", ctx.Err()
	}
	_, _, dir := start(t, agent)
	ctx, cancel := context.WithCancel(ctxFor(t))
	failed := make(chan error, 1)
	go func() {
		_, err := NewClient(dir).RotateKey(ctx, nil, func(KeyStep) {})
		failed <- err
	}()
	<-begun
	cancel()
	<-ended
	if err := <-failed; err == nil {
		t.Error("the client says nothing")
	}
	var none *NoAgent
	if _, err := NewClient(t.TempDir()).RotateKey(ctxFor(t), nil, nil); !errors.As(err, &none) {
		t.Errorf("%v", err)
	}
}
