package main

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sipalive/sipcheck"
)

func newPingCommand() *cobra.Command {
	var timeout time.Duration
	var ca string
	cmd := &cobra.Command{
		Use:   "ping sip:HOST[:PORT][;transport=tcp|tls]",
		Short: "Send one OPTIONS and show the answer",
		Long: `Send one OPTIONS over UDP, TCP or TLS, as the agent does, and show the answer,
how long it took and the server's certificate. Any answer is an answer, and any
certificate is shown: exit code 0.`,
		Args: arguments("sip:HOST[:PORT][;transport=tcp|tls]"),
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 2*time.Second, "how long to wait for the answer")
	cmd.Flags().StringVar(&ca, "ca", "", "authorities to believe, a PEM file (default: the system's)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		uri, err := sipcheck.ParseURI(args[0])
		if err != nil {
			return misuse(cmd, "%v", err)
		}
		if timeout <= 0 {
			return misuse(cmd, "--timeout %v: must be positive", timeout)
		}
		roots, err := sipcheck.LoadRoots(ca)
		if err != nil {
			return err
		}
		to, err := uri.Resolve(cmd.Context())
		if err != nil {
			return err
		}
		security := sipcheck.Security{Insecure: true, Roots: roots} // shown, not judged
		if _, err := netip.ParseAddr(uri.Host); err != nil {
			security.Name = uri.Host
		}
		answer, err := sipcheck.Ping(cmd.Context(), to, sipcheck.PingOptions{Transport: uri.Transport, Security: security, Timeout: timeout})
		if err != nil {
			return err
		}
		who := uri.String()
		if uri.Host != to.Addr().String() {
			who += " (" + to.Addr().String() + ")"
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), who+": "+pingText(answer))
		return err
	}
	return cmd
}

func pingText(a sipcheck.Answer) string {
	text := answerText(a)
	if a.Connect > 0 {
		text += fmt.Sprintf(", connected in %.1f ms", a.Connect.Seconds()*1000)
	}
	if a.Server != "" {
		text += ", " + a.Server
	}
	if c := a.Certificate; c != nil {
		text += "\n" + certificateText(c)
	}
	return text
}

func answerText(a sipcheck.Answer) string {
	return strings.TrimSpace(fmt.Sprintf("%d %s", a.Code, a.Phrase)) + fmt.Sprintf(" in %.1f ms", a.RTT.Seconds()*1000)
}

func certificateText(c *sipcheck.Certificate) string {
	text := fmt.Sprintf("certificate: %s, by %s, ends %s", c.Subject, c.Issuer, c.NotAfter.UTC().Format("2006-01-02 15:04 MST"))
	if c.Problem != nil {
		return text + "; not to be believed: " + strings.ReplaceAll(c.Problem.Error(), "\n", " ")
	}
	return text + "; believed"
}
