package hooks

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// smtpServer is Debian's aiosmtpd with a mailbox, STARTTLS and a login.
const smtpServer = `
import asyncio, ssl, sys
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Mailbox
from aiosmtpd.smtp import AuthResult
box, cert, key, mode = sys.argv[1:5]
tls = None
if cert:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); tls.load_cert_chain(cert, key)
def login(server, session, envelope, mechanism, data):
    return AuthResult(success=(data.login, data.password) == (b"sipalive", b"s3cret"), handled=False)
c = Controller(Mailbox(box), hostname="127.0.0.1", port=0, tls_context=tls, authenticator=login,
               auth_required=mode == "login", require_starttls=mode == "tls")
loop = asyncio.new_event_loop()
server = loop.run_until_complete(loop.create_server(c.factory, host="127.0.0.1", port=0))
print(server.sockets[0].getsockname()[1], flush=True)
loop.run_forever()
`

// mailServer starts that server and returns its address and mailbox.
func mailServer(t *testing.T, withTLS bool, mode string) (address, box string, ca *x509.CertPool) {
	t.Helper()
	dir := t.TempDir()
	box = filepath.Join(dir, "box")
	cert, key := "", ""
	if withTLS {
		cert, key = selfSigned(t, dir)
		text, err := os.ReadFile(cert)
		must(t, err)
		ca = x509.NewCertPool()
		ca.AppendCertsFromPEM(text)
	}
	cmd := exec.Command("/usr/bin/python3", "-c", smtpServer, box, cert, key, mode)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	port, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("aiosmtpd: %v (make tools installs it)", err)
	}
	return net.JoinHostPort("127.0.0.1", strings.TrimSpace(port)), box, ca
}

func selfSigned(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	must(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	must(t, err)
	for name, block := range map[string]*pem.Block{"cert": {Type: "CERTIFICATE", Bytes: der}, "key": {Type: "PRIVATE KEY", Bytes: secret}} {
		must(t, os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600))
	}
	return filepath.Join(dir, "cert"), filepath.Join(dir, "key")
}

func mails(t *testing.T, box string) (all []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(box, "new", "*"))
	must(t, err)
	for _, f := range files {
		text, err := os.ReadFile(f)
		must(t, err)
		all = append(all, string(text))
	}
	return all
}

// sendMail sends one mail through the server.
func sendMail(t *testing.T, s MailServer) Outcome {
	t.Helper()
	s.From = "sipalive@pbx2.example.net"
	r := newTestRunner(t, Options{Mail: s, Host: "pbx2"})
	j := newJournal()
	ev := Event{Name: "takeover", VIP: "vip1", Subject: "vip1: pbx1 -> pbx2\r\nBcc: evil@example.net", Text: "line one\nline two\n"}
	r.Start("-notify-0", Notice, 0, ev, []Action{{On: Notice, Mail: []string{"noc@example.net", "boss@example.net"}, Timeout: patience}}, j.report, j.done)
	return j.wait(t)[0]
}

func TestMail(t *testing.T) {
	password := filepath.Join(t.TempDir(), "password")
	must(t, os.WriteFile(password, []byte("s3cret\n"), 0o600))
	wrong := filepath.Join(t.TempDir(), "wrong")
	must(t, os.WriteFile(wrong, []byte("guess\n"), 0o600))
	for _, tt := range []struct {
		name    string
		withTLS bool
		mode    string
		trusted bool
		server  MailServer
		want    string // part of the error; "": the mail arrives
	}{
		{"plain", false, "", false, MailServer{TLS: MailPlain}, ""},
		{"opportunistic without", false, "", false, MailServer{TLS: MailOpportunistic}, ""},
		{"opportunistic with", true, "tls", false, MailServer{TLS: MailOpportunistic}, ""},
		{"login", true, "login", true, MailServer{TLS: MailOpportunistic, User: "sipalive", PasswordFile: password}, ""},
		{"login, required", true, "login", true, MailServer{TLS: MailRequired, User: "sipalive", PasswordFile: password}, ""},
		{"login, unknown certificate", true, "login", false, MailServer{TLS: MailOpportunistic, User: "sipalive", PasswordFile: password},
			"certificate signed by unknown authority: its CA has to be among this machine's (no password is sent otherwise; or leave user and password_file of [mail] out)"},
		{"login without TLS", false, "login", false, MailServer{TLS: MailOpportunistic, User: "sipalive", PasswordFile: password},
			"does not support STARTTLS (no password is sent otherwise; or leave user and password_file of [mail] out)"},
		{"wrong password", true, "login", true, MailServer{TLS: MailOpportunistic, User: "sipalive", PasswordFile: wrong}, "535"},
		{"no login", true, "login", false, MailServer{TLS: MailOpportunistic}, "Authentication required"},
		{"required without", false, "", false, MailServer{TLS: MailRequired}, "does not support STARTTLS (or set tls = \"opportunistic\" in [mail])"},
		{"required, unknown certificate", true, "", false, MailServer{TLS: MailRequired},
			"unknown authority: its CA has to be among this machine's (or set tls = \"opportunistic\" in [mail])"},
		{"plain where TLS is wanted", true, "tls", false, MailServer{TLS: MailPlain}, "Must issue a STARTTLS command first"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			address, box, ca := mailServer(t, tt.withTLS, tt.mode)
			tt.server.Server = address
			if tt.trusted {
				tt.server.Roots = ca
			}
			o := sendMail(t, tt.server)
			got := mails(t, box)
			if tt.want != "" {
				if o.OK || !strings.Contains(o.Err, tt.want) || len(got) != 0 {
					t.Errorf("%+v with %d mails, want %s", o, len(got), tt.want)
				}
				return
			}
			if !o.OK || len(got) != 1 {
				t.Fatalf("%+v with %d mails", o, len(got))
			}
			for _, line := range []string{"Subject: vip1: pbx1 -> pbx2 Bcc: evil@example.net", "From: <sipalive@pbx2.example.net>",
				"To: <noc@example.net>, <boss@example.net>", "Auto-Submitted: auto-generated", "\nline one\nline two\n"} {
				if !strings.Contains(strings.ReplaceAll(got[0], "\r\n", "\n"), line) {
					t.Errorf("no %q in\n%s", line, got[0])
				}
			}
		})
	}
}

func TestMailServerThatHangs(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts, but nobody answers
	must(t, err)
	defer l.Close()
	r := newTestRunner(t, Options{Mail: MailServer{Server: l.Addr().String(), TLS: MailPlain, From: "a@b"}, Host: "pbx2"})
	began := time.Now()
	o := runOne(t, r, Action{Mail: []string{"noc@example.net"}, Timeout: 300 * time.Millisecond})
	if o.OK || !strings.Contains(o.Err, "no answer within 300ms") || time.Since(began) > 10*time.Second {
		t.Errorf("%+v after %s", o, time.Since(began))
	}
}
