package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"sipalive/agent"
	"sipalive/config"
	"sipalive/eventsocket"
	"sipalive/hooks"
	"sipalive/platform"
	"sipalive/sipcheck"
)

// finding is what an agent would conclude from one question.
type finding struct {
	who, what, word, why string
	bad                  bool
}

func newProbeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "probe -c FILE",
		Short: "Ask every SIP target as the agent would, and say what follows",
		Long: `Ask every SIP target of the file on every node and VIP, each as patiently as the
agent would, and run this node's own checks once: what the agent would conclude,
and why. Needs no agent and changes nothing. Exit code 1 if anything speaks
against a node.`,
		Args:                  arguments(""),
		DisableFlagsInUseLine: true,
	}
	file := cmd.Flags().StringP("config", "c", "", "the configuration file")
	node := cmd.Flags().String("node", "", "this node's name (default: the node whose address is on this machine; none: no checks are run)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *file == "" {
			return misuse(cmd, "needs -c FILE")
		}
		c, err := config.Load(*file)
		if err != nil {
			return err
		}
		roots, err := sipcheck.LoadRoots(c.SIP.TLSCA)
		if err != nil {
			return err
		}
		local, err := platform.LocalAddresses()
		if err != nil {
			return err
		}
		self, err := c.Self(*node, local)
		if err != nil && *node != "" {
			return err
		}
		found := findings(cmd.Context(), c, self, from(self, local), sipcheck.Security{Insecure: !c.SIP.TLSVerify, Roots: roots})
		return writeFindings(cmd.OutOrStdout(), found)
	}
	return cmd
}

// from returns the address that the agent would ask from: the node's own, because the
// kernel might choose a VIP. It is invalid on a machine that is not the node.
func from(self *config.Node, local []netip.Addr) netip.Addr {
	if self == nil || !slices.Contains(local, self.Address) {
		return netip.Addr{}
	}
	return self.Address
}

// findings asks everything at the same time. The findings are in the file's order.
func findings(ctx context.Context, c *config.Config, self *config.Node, from netip.Addr, security sipcheck.Security) []finding {
	opts := sipcheck.Options{Local: from, Security: security}
	var asks []func() finding
	for _, n := range c.Nodes {
		for _, t := range c.SIP.OnNode() {
			if n.Holder {
				asks = append(asks, func() finding { return askTarget(ctx, c, "node "+n.Name, t, n.Address, opts) })
			}
		}
	}
	for _, v := range c.VIPs {
		for _, t := range c.SIP.OnVIP(v.Name) {
			asks = append(asks, func() finding { return askTarget(ctx, c, "VIP "+v.Name, t, v.Address, opts) })
		}
	}
	if self != nil && self.Holder {
		for _, k := range c.Checks {
			asks = append(asks, func() finding { return askCheck(ctx, self.Name, k) })
		}
		if c.FreeSWITCH.ReadyCheck {
			asks = append(asks, func() finding { return askFreeSWITCH(ctx, self.Name, c) })
		}
	}
	found := make([]finding, len(asks))
	var all sync.WaitGroup
	for i, ask := range asks {
		all.Go(func() { found[i] = ask() })
	}
	all.Wait()
	return found
}

// askTarget goes on until there is a verdict, as the agent does: after one answer, one
// refusal, or fall probes.
func askTarget(ctx context.Context, c *config.Config, who string, t config.Target, at netip.Addr, opts sipcheck.Options) finding {
	f := finding{who: who, what: fmt.Sprintf("%s, %s:%d", t.Name, t.Transport, t.Port), bad: true}
	by, _ := sipcheck.ParseTransport(t.Transport)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	verdict := make(chan sipcheck.Result, 1)
	if opts.Local.Is4() != at.Is4() {
		opts.Local = netip.Addr{}
	}
	opts.Deliver = func(r sipcheck.Result) {
		if r.Changed {
			select {
			case verdict <- r:
			default:
			}
		}
	}
	p := sipcheck.NewProber(sipcheck.Target{
		Node: who, Name: t.Name, Address: netip.AddrPortFrom(at, t.Port), Transport: by, Interval: t.SelfInterval, Timeout: t.Timeout,
		Fall: t.Fall, Rise: t.Rise, UnhealthyCodes: t.UnhealthyCodes, UserAgent: c.SIP.UserAgent,
	}, opts)
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	select {
	case r := <-verdict:
		f.word, f.bad, f.why = r.Verdict.String(), r.Verdict != sipcheck.Up, why(r, t)
	case err := <-ended:
		f.word, f.why = "unknown", fmt.Sprint(err)
		return f
	}
	cancel()
	<-ended
	return f
}

func why(r sipcheck.Result, t config.Target) string {
	var text string
	switch {
	case r.Err != nil && r.Verdict == sipcheck.Silent:
		text = fmt.Sprintf("%d probes unanswered: %v", r.Misses, r.Err)
	case r.Err != nil:
		text = r.Err.Error()
	case r.Verdict == sipcheck.Unhealthy:
		text = fmt.Sprintf("%s, %d times: %d is in unhealthy_codes", answerText(r.Answer), r.Misses, r.Code)
	default:
		text = answerText(r.Answer)
		if r.Code >= 300 {
			text += fmt.Sprintf(": any answer is life, %d is not in unhealthy_codes", r.Code)
		}
	}
	if r.Certificate != nil {
		text += "; " + certificateText(r.Certificate)
	}
	return text
}

// askCheck asks once. The agent would ask fall times, an interval apart.
func askCheck(ctx context.Context, self string, k config.Check) finding {
	code, text := hooks.RunCheck(ctx, self, k.Exec, k.Timeout)
	word := map[int]string{hooks.CheckOK: "ok", hooks.CheckWarning: "warn", hooks.CheckUnfit: unfitAfter(k.Fall)}[code]
	if word == "" {
		word = "unknown"
	}
	return finding{who: "node " + self, what: "check " + k.Name, word: word, why: text, bad: code == hooks.CheckUnfit}
}

// unfitAfter returns what one no means.
func unfitAfter(fall int) string {
	if fall == 1 {
		return "unfit"
	}
	return fmt.Sprintf("would be unfit after %d in a row", fall)
}

// askFreeSWITCH gives FreeSWITCH as long as the agent does, and gives its no the same
// weight.
func askFreeSWITCH(ctx context.Context, self string, c *config.Config) finding {
	ctx, cancel := context.WithTimeout(ctx, agent.ReadyEvery)
	defer cancel()
	r, err := sipcheck.AskReadiness(ctx, eventsocket.Client{Address: c.FreeSWITCH.Address, Password: func() (string, error) { return readPassword(c.FreeSWITCH.PasswordFile) }})
	f := finding{who: "node " + self, what: "freeswitch", word: r.String()}
	switch {
	case err != nil:
		f.why = err.Error() + "; OPTIONS alone decides"
	case r == sipcheck.Unready:
		f.word, f.why, f.bad = unfitAfter(c.SIP.OnNode()[0].Fall), agent.NotReady, true
	}
	return f
}

// writeFindings prints one line for each finding. If one is bad, the answer is no.
func writeFindings(w io.Writer, found []finding) error {
	bad := false
	for _, f := range found {
		bad = bad || f.bad
		line := fmt.Sprintf("%s: %s: %s", f.who, f.what, f.word)
		if f.why != "" {
			line += ": " + strings.ReplaceAll(f.why, "\n", " ")
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	if bad {
		return errNo
	}
	return nil
}
