package hooks

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/wneessen/go-mail"
)

// MailTLS says how much encryption a mail server must offer.
type MailTLS string

// The values of MailTLS. Opportunistic takes the encryption that is offered and does not
// check the certificate, because an attacker could just as well leave TLS out (RFC 7435).
// Required does check it. With a password, opportunistic means required: otherwise an
// attacker in between would get the password.
const (
	MailPlain         MailTLS = "none"
	MailOpportunistic MailTLS = "opportunistic"
	MailRequired      MailTLS = "required"
)

// MailServer is the server that takes the mail, and how to log in.
type MailServer struct {
	Server       string // host:port
	TLS          MailTLS
	User         string // "": no login
	PasswordFile string
	From         string
	Roots        *x509.CertPool // nil: this machine's
}

// verified reports that mail is sent only over TLS with a trusted certificate.
func (s MailServer) verified() bool {
	return s.TLS == MailRequired || s.TLS != MailPlain && s.User != ""
}

// checkMail requires valid mail addresses.
func checkMail(to []string) error {
	m := mail.NewMsg()
	for _, address := range to {
		if err := m.To(address); err != nil {
			return fmt.Errorf("mail %s: not an address, e.g. noc@example.net", oneLine(address))
		}
	}
	return nil
}

// runMail hands one mail for all recipients to the server.
func (r *Runner) runMail(ctx context.Context, a Action, ev Event) result {
	server := r.mail()
	fail := func(err error) result {
		if ended(ctx, err) {
			err = errors.New(whyEnded(ctx, "no answer", a.timeout()))
		}
		return result{err: fmt.Errorf("mail by %s: %s", server.Server, oneLine(err.Error()))}
	}
	m, err := compose(server.From, a.Mail, ev)
	if err != nil {
		return fail(err)
	}
	client, err := r.mailClient(ctx, server, a)
	if err != nil {
		return fail(err)
	}
	if err := client.DialAndSendWithContext(ctx, m); err != nil {
		return fail(server.advise(err))
	}
	return result{}
}

// advise adds what to do if the server's TLS is not good enough.
func (s MailServer) advise(err error) error {
	var untrusted *tls.CertificateVerificationError
	switch {
	case !s.verified() || !errors.As(err, &untrusted) && !strings.Contains(err.Error(), "STARTTLS"):
		return err
	case errors.As(err, &untrusted):
		err = fmt.Errorf("%w: its CA has to be among this machine's", untrusted)
	}
	if s.User == "" {
		return fmt.Errorf("%w (or set tls = \"opportunistic\" in [mail])", err)
	}
	return fmt.Errorf("%w (no password is sent otherwise; or leave user and password_file of [mail] out)", err)
}

func compose(from string, to []string, ev Event) (*mail.Msg, error) {
	m := mail.NewMsg()
	if err := m.From(from); err != nil {
		return nil, err
	}
	if err := m.To(to...); err != nil {
		return nil, err
	}
	m.Subject(oneLine(ev.Subject))
	m.SetMessageID()
	m.SetDate()
	m.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: no vacation replies
	m.SetBodyString(mail.TypeTextPlain, printable(ev.Text))
	return m, nil
}

func (r *Runner) mailClient(ctx context.Context, server MailServer, a Action) (*mail.Client, error) {
	host, port, err := net.SplitHostPort(server.Server)
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return nil, err
	}
	opts := []mail.Option{mail.WithPort(n), mail.WithTimeout(a.timeout()), mail.WithHELO(r.opts.Host), mail.WithDialContextFunc(r.bound(ctx))}
	switch {
	case server.TLS == MailPlain:
		opts = append(opts, mail.WithTLSPolicy(mail.NoTLS))
	case server.verified():
		opts = append(opts, mail.WithTLSPolicy(mail.TLSMandatory),
			mail.WithTLSConfig(&tls.Config{ServerName: host, RootCAs: server.Roots, MinVersion: tls.VersionTLS12}))
	default:
		opts = append(opts, mail.WithTLSPolicy(mail.TLSOpportunistic),
			mail.WithTLSConfig(&tls.Config{ServerName: host, InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}))
	}
	if server.User != "" {
		password, err := readSecret(server.PasswordFile)
		if err != nil {
			return nil, err
		}
		opts = append(opts, mail.WithSMTPAuth(mail.SMTPAuthAutoDiscover), mail.WithUsername(server.User), mail.WithPassword(password))
	}
	return mail.NewClient(host, opts...)
}
