// Package view looks at a cluster as people and Prometheus do, while a takeover happens:
// at the status page in a browser, and at the examples' rules and board in a Prometheus
// that scrapes three agents.
package view

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"sipalive/test/cluster"
	"sipalive/test/lab"
	"sipalive/test/shipped"
)

// binary is the path of sipalive as it is shipped, built once per run.
var binary string

func TestMain(m *testing.M) { os.Exit(shipped.Main(m, "e2e/view", &binary)) }

// patience bounds every wait for something that must come.
const patience = 30 * time.Second

// port is where every agent serves its status page and metrics.
const port = 9480

// start starts a cluster whose agents serve their status over HTTP, and waits until it is
// at rest.
func start(t *testing.T, actions func(vip int) string) *cluster.Cluster {
	t.Helper()
	c, err := cluster.Start(cluster.Options{Binary: binary, VIP: actions,
		TOML: fmt.Sprintf("[control]\nlisten = \"0.0.0.0:%d\"\npublic = true\n", port)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for i := range c.Nodes() {
				t.Logf("%s:\n%s", c.Node(i).Name, c.Agent(i).Output())
			}
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	if err := c.WaitHeld(ctx, 0, "pbx1", "pbx2", "pbx3"); err != nil {
		t.Fatal(err)
	}
	return c
}

// client returns an HTTP client that connects from a host of the lab.
func client(h *lab.Host) *http.Client {
	return &http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (conn net.Conn, err error) {
			dial := h.Do(func() error {
				conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
				return err
			})
			return conn, dial
		},
	}}
}

func get(c *http.Client, url string) (string, error) {
	resp, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", url, resp.Status, body)
	}
	return string(body), err
}

func getJSON(c *http.Client, url string, into any) error {
	body, err := get(c, url)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(body), into)
}

// wait waits until ok returns nil.
func wait(t *testing.T, what string, ok func() error) {
	t.Helper()
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	if err := lab.WaitFor(ctx, what, ok); err != nil {
		t.Fatal(err)
	}
}
