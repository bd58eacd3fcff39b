// Package examples checks what operators copy: every file is read as sipalive reads it,
// every script is run.
package examples

import (
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sipalive/agent"
	"sipalive/config"
)

const root = "../../examples"

func TestConfigurations(t *testing.T) {
	files, err := filepath.Glob(root + "/*/sipalive.toml")
	if err != nil || len(files) != 5 {
		t.Fatalf("%d examples, %v", len(files), err)
	}
	for _, f := range files {
		c, err := config.Load(f)
		if err == nil {
			err = agent.CheckActions(c)
		}
		if err != nil {
			t.Error(err)
		}
	}
}

// TestProfile: the configuration recovers the profile by its real name.
func TestProfile(t *testing.T) {
	text, err := os.ReadFile(root + "/freeswitch/vip1.xml")
	if err != nil {
		t.Fatal(err)
	}
	var p struct {
		Name   string `xml:"name,attr"`
		Params []struct {
			Name  string `xml:"name,attr"`
			Value string `xml:"value,attr"`
		} `xml:"settings>param"`
	}
	if err := xml.Unmarshal(text, &p); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(root + "/freeswitch/sipalive.toml")
	if err != nil {
		t.Fatal(err)
	}
	v := c.VIPs[0]
	if p.Name != v.Name || v.Actions[1].FreeSWITCH[0] != "profile-recover "+p.Name {
		t.Errorf("profile %s, actions %+v", p.Name, v.Actions)
	}
	values := map[string]string{}
	for _, param := range p.Params {
		values[param.Name] = param.Value
	}
	if values["sip-ip"] != v.Address.String() || values["track-calls"] != "true" {
		t.Errorf("profile %v", values)
	}
}

// run runs a script with an action's environment.
func run(t *testing.T, script string, env []string, args ...string) (string, error) {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(root, script))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(env, "PATH="+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestFlushFileCache(t *testing.T) {
	dir := t.TempDir()
	for _, f := range []string{"dialplan", "directory/alice@example.net"} {
		path := filepath.Join(dir, f)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := run(t, "fusionpbx/flush-file-cache", nil, dir); err != nil || !strings.Contains(out, "emptied") {
		t.Fatalf("%v: %s", err, out)
	}
	_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			t.Errorf("left: %s, %v", path, err)
		}
		return nil
	})
	if out, err := run(t, "fusionpbx/flush-file-cache", nil, dir+"/none"); err != nil {
		t.Errorf("without a cache: %v: %s", err, out)
	}
}

func TestAssign(t *testing.T) {
	type request struct{ path, token, body string }
	asked, answers := make(chan request, 1), make(chan int, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		asked <- request{r.URL.Path, r.Header.Get("Authorization"), string(text)}
		w.WriteHeader(<-answers)
	}))
	defer srv.Close()
	conf := filepath.Join(t.TempDir(), "provider.conf")
	if err := os.WriteFile(conf, []byte(fmt.Sprintf("url=%s/v1/floating_ips\ntoken=s3cret\nserver=4711\n", srv.URL)), 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{"SIPALIVE_ADDRESS=203.0.113.10"}
	answers <- http.StatusOK
	if out, err := run(t, "floating-ip-api/assign", env, conf); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got, want := <-asked, (request{"/v1/floating_ips/203.0.113.10/assign", "Bearer s3cret", `{"server": 4711}`}); got != want {
		t.Errorf("asked %+v, want %+v", got, want)
	}
	answers <- http.StatusServiceUnavailable
	if out, err := run(t, "floating-ip-api/assign", env, conf); err == nil {
		t.Errorf("a provider that refuses is no failure: %s", out)
	}
}
