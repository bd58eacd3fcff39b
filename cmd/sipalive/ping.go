package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"sipalive/sipcheck"
)

func newPingCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "ping sip:HOST[:PORT]",
		Short: "Send one OPTIONS and show the answer",
		Long: `Send one OPTIONS over UDP, as the agent does, and show the answer and how long
it took. Any answer is an answer: exit code 0.`,
		Args: arguments("sip:HOST[:PORT]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			uri, err := sipcheck.ParseURI(args[0])
			if err != nil {
				return misuse(cmd, "%v", err)
			}
			to, err := uri.Resolve(cmd.Context())
			if err != nil {
				return err
			}
			answer, err := sipcheck.Ping(cmd.Context(), to, sipcheck.PingOptions{})
			if err != nil {
				return err
			}
			who := uri.String()
			if uri.Host != to.Addr().String() {
				who += " (" + to.Addr().String() + ")"
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), who+": "+pingText(answer))
			return err
		},
	}
}

func pingText(a sipcheck.Answer) string {
	text := strings.TrimSpace(fmt.Sprintf("%d %s", a.Code, a.Phrase)) + fmt.Sprintf(" in %.1f ms", a.RTT.Seconds()*1000)
	if a.Server != "" {
		text += ", " + a.Server
	}
	return text
}
