package sipcheck

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"encoding/pem"
)

func TestCertificates(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	good, expired := time.Now().Add(10*24*time.Hour), time.Now().Add(-time.Minute)
	for name, c := range map[string]struct {
		notAfter time.Time
		security Security
		want     string // "": the probe is answered
		problem  string // the problem of the certificate shown
	}{
		"good":                   {good, Security{Roots: ca.roots}, "", ""},
		"good, by name":          {good, Security{Roots: ca.roots, Name: "pbx1.example.net"}, "", ""},
		"another name":           {good, Security{Roots: ca.roots, Name: "pbx9.example.net"}, "not pbx9.example.net", ""},
		"expired":                {expired, Security{Roots: ca.roots}, `TLS: certificate of "pbx1.example.net": x509: certificate has expired`, ""},
		"unknown authority":      {good, Security{Roots: other.roots}, "certificate signed by unknown authority", ""},
		"the system's roots":     {good, Security{}, "certificate signed by unknown authority", ""},
		"expired, not verified":  {expired, Security{Roots: ca.roots, Insecure: true}, "", "certificate has expired"},
		"unknown, not verified":  {good, Security{Insecure: true}, "", "unknown authority"},
		"no name, not verified":  {good, Security{Insecure: true, Roots: ca.roots}, "", ""},
		"bad name, not verified": {good, Security{Insecure: true, Roots: ca.roots, Name: "x.example"}, "", "not x.example"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serveStream(t, ownAddress(), ca.issue(t, c.notAfter), answers(always("200 OK")))
			timeout := patience
			if c.want != "" {
				timeout = 3 * time.Second // the test waits for all of it
			}
			a, err := Ping(t.Context(), s.addr, PingOptions{Transport: TLS, Security: c.security, Timeout: timeout})
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
					t.Fatalf("%v, want %s", err, c.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			seen := a.Certificate
			if seen == nil || seen.Subject != "pbx1.example.net" || seen.Issuer != "Test Authority" || seen.NotAfter.Unix() != c.notAfter.Unix() {
				t.Fatalf("%+v", seen)
			}
			if (seen.Problem == nil) != (c.problem == "") || seen.Problem != nil && !strings.Contains(seen.Problem.Error(), c.problem) {
				t.Fatalf("%v, want %s", seen.Problem, c.problem)
			}
		})
	}
}

func TestTLSAgainstPlainTCP(t *testing.T) {
	s := serveStream(t, ownAddress(), nil, func(int, request) ([][]byte, bool) { return nil, true })
	_, err := Ping(t.Context(), s.addr, PingOptions{Transport: TLS, Timeout: 200 * time.Millisecond})
	if err == nil || strings.Contains(err.Error(), "\n") {
		t.Fatal(err)
	}
}

func TestLoadRoots(t *testing.T) {
	if roots, err := LoadRoots(""); roots != nil || err != nil {
		t.Errorf("the system's: %v, %v", roots, err)
	}
	dir, ca := t.TempDir(), newAuthority(t)
	good, bad := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "bad.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})
	for path, content := range map[string][]byte{good: block, bad: []byte("no PEM\n")} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if roots, err := LoadRoots(good); err != nil || !roots.Equal(ca.roots) {
		t.Errorf("%v", err)
	}
	if _, err := LoadRoots(bad); err == nil || err.Error() != "read the TLS authorities: "+bad+" holds no certificate in PEM (see tls_ca under [sip])" {
		t.Errorf("%v", err)
	}
	if _, err := LoadRoots(filepath.Join(dir, "none")); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("%v", err)
	}
}
