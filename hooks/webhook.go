package hooks

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
)

// SignatureHeader is the header with the HMAC-SHA256 of a webhook's body under the
// secret, in hexadecimal.
const SignatureHeader = "X-Sipalive-Signature"

// message is a webhook's body.
type message struct {
	Event    string `json:"event"`
	VIP      string `json:"vip,omitempty"`
	Address  string `json:"address,omitempty"`
	Node     string `json:"node"`
	Previous string `json:"previous,omitempty"`
	Epoch    uint64 `json:"epoch,omitempty"`
	Cause    Cause  `json:"cause,omitempty"`
	Reason   string `json:"reason,omitempty"`
	Text     string `json:"text,omitempty"`
}

// checkHTTP requires a URL that can be requested.
func checkHTTP(target string) error {
	u, err := url.Parse(target)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("http %s: not a URL (use https://host/path)", oneLine(target))
	case u.User != nil:
		return fmt.Errorf("http %s: no password in a URL (the body is signed with secret_file)", oneLine(u.Redacted()))
	}
	return nil
}

// runHTTP posts the event as JSON. Any 2xx is success. Redirects are not followed: they
// would carry the signed body to somebody else.
func (r *Runner) runHTTP(ctx context.Context, a Action, phase Phase, ev Event) result {
	fail := func(err error) result {
		return result{err: fmt.Errorf("http %s: %s", shortURL(a.HTTP), oneLine(err.Error()))}
	}
	body, err := json.Marshal(message{Event: ev.name(phase), VIP: ev.VIP, Address: ev.Address, Node: ev.Node, Previous: ev.Previous,
		Epoch: ev.Epoch, Cause: ev.Cause, Reason: ev.Reason, Text: ev.Text})
	if err != nil {
		return fail(err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.HTTP, bytes.NewReader(body))
	if err != nil {
		return fail(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "sipalive")
	if a.SecretFile != "" {
		signature, err := sign(a.SecretFile, body)
		if err != nil {
			return fail(err)
		}
		req.Header.Set(SignatureHeader, signature)
	}
	client := http.Client{
		Transport:     &http.Transport{DialContext: r.opts.Dial, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		if ended(ctx, err) {
			return fail(errors.New(whyEnded(ctx, "no answer", a.timeout())))
		}
		return fail(errors.Unwrap(err)) // without the URL, which may hold a token
	}
	defer resp.Body.Close()
	var out capture
	_, _ = io.Copy(&out, io.LimitReader(resp.Body, bodyRead))
	res := result{output: out.String()}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		res.err = fmt.Errorf("http %s: it answers %s", shortURL(a.HTTP), oneLine(resp.Status))
	}
	return res
}

// bodyRead is how much of an answer is read, in bytes.
const bodyRead = 64 << 10

// shortURL returns scheme and host. The rest may hold a token, for chats even in the
// path.
func shortURL(target string) string {
	u, err := url.Parse(target)
	if err != nil {
		return "(not a URL)" // Check refuses it
	}
	return oneLine(u.Scheme + "://" + u.Host)
}

func sign(file string, body []byte) (string, error) {
	secret, err := readSecret(file)
	if err != nil {
		return "", err
	}
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil)), nil
}

// readSecret reads a file with one line, at each use, so that a changed file takes
// effect.
func readSecret(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("no secret: %w", err)
	}
	secret := strings.TrimSpace(string(text))
	if secret == "" {
		return "", fmt.Errorf("no secret: %s is empty", file)
	}
	return secret, nil
}
