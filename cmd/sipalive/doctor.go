package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sipalive/agent"
	"sipalive/config"
	"sipalive/control"
	"sipalive/doctor"
	"sipalive/member"
	"sipalive/platform"
)

func newDoctorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor -c FILE",
		Short: "Look at the file, this machine, its agent and the way to the others",
		Long: `Look at the file, at this machine, at the agent that runs on it and at the way to
the other nodes, and say of each thing whether it is good, and what to do where it is
not. Run it as root, on every node. It changes nothing; where no agent runs it takes
the agent's port for some seconds to ask the others.

Exit code 0: nothing is wrong, warnings aside; 1: there are errors.`,
		Args:                  arguments(""),
		DisableFlagsInUseLine: true,
	}
	var d diagnosis
	cmd.Flags().StringVarP(&d.file, "config", "c", "", "the configuration file")
	cmd.Flags().StringVar(&d.node, "node", "", "this node's name (default: the node whose address is on this machine)")
	d.runDir = addRunDir(cmd)
	asJSON := cmd.Flags().Bool("json", false, "one JSON object per line: check, level, text, do")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if d.file == "" {
			return misuse(cmd, "needs -c FILE")
		}
		return writeDiagnosis(cmd.OutOrStdout(), doctor.Examine(d.facts(cmd.Context())), *asJSON)
	}
	return cmd
}

// writeDiagnosis prints one line for each finding. If an error is among them, the answer
// is no.
func writeDiagnosis(w io.Writer, found []doctor.Finding, asJSON bool) error {
	counts := map[doctor.Level]int{}
	lines := json.NewEncoder(w)
	lines.SetEscapeHTML(false)
	for _, f := range found {
		counts[f.Level]++
		var err error
		if asJSON {
			err = lines.Encode(f)
		} else {
			_, err = io.WriteString(w, diagnosisLine(f))
		}
		if err != nil {
			return err
		}
	}
	if !asJSON {
		if _, err := fmt.Fprintf(w, "errors: %d, warnings: %d, ok: %d\n", counts[doctor.Error], counts[doctor.Warning], counts[doctor.OK]); err != nil {
			return err
		}
	}
	if doctor.Worst(found) == doctor.Error {
		return errNo
	}
	return nil
}

// diagnosisLine keeps a finding on one line: it may contain what others wrote (a PBX, a
// rule's comment).
func diagnosisLine(f doctor.Finding) string {
	text := f.Text
	if f.Do != "" {
		text += ". To do: " + f.Do
	}
	return fmt.Sprintf("%-7s  %s: %s\n", f.Level, f.Check, printableLine(text))
}

func printableLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

// diagnosis is one run of `sipalive doctor`.
type diagnosis struct {
	file, node string
	runDir     *string
}

// facts gathers everything, each kind in one place. What cannot be had is missing in the
// facts, or is in them as an error. Package doctor judges, not this one.
func (d diagnosis) facts(ctx context.Context) *doctor.Facts {
	f := &doctor.Facts{File: d.file, Gossip: member.GossipProbe}
	if f.Config, f.FileErr = loadChecked(d.file); f.FileErr != nil {
		return f
	}
	keys, err := config.LoadKeyring(f.Config.KeyFile)
	f.Keys, f.KeyErr = len(keys), err
	f.Clock = findClock()
	f.Keepers, f.Unread = findKeepers(f.Config, hostFiles)
	local, err := platform.LocalAddresses()
	if err == nil {
		f.Self, err = f.Config.Self(d.node, local)
	}
	if f.SelfErr = err; err != nil {
		return f
	}
	f.Agent = findAgent(ctx, *d.runDir)
	f.Bound = findBound() // after the agent was asked who holds what
	f.Links = findLinks(f)
	f.Gateways = findGateways(f)
	f.Firewall = findFirewall(ctx)
	// What waits for others waits at the same time.
	together(
		func() { f.Ports = findPorts(ctx, f.Config, f.Self, keys) },
		func() { f.Drifts = findDrifts(ctx, f.Config, f.Self) },
		func() { f.Probes = findProbes(ctx, f.Config, f.Self, local) },
		func() { f.PBX = findPBX(ctx, f.Config, f.Self) },
	)
	f.Nonlocal = findNonlocal()
	f.Served = findServed(f)
	return f
}

func loadChecked(file string) (*config.Config, error) {
	c, err := config.Load(file)
	if err != nil {
		return nil, err
	}
	return c, agent.CheckActions(c)
}

// findAgent asks the agent. If none answers, the capabilities are those of this process.
func findAgent(ctx context.Context, runDir string) *doctor.Agent {
	a := &doctor.Agent{}
	a.Status, a.Err = control.NewClient(runDir).Status(ctx)
	if a.Err != nil {
		a.Missing = platform.MissingCapabilities(doctor.Needed...)
		return a
	}
	pid := agentProcess(runDir)
	var err error
	a.Missing, err = platform.MissingCapabilitiesOf(pid, doctor.Needed...)
	a.Unseen = pid == 0 || err != nil // the agent has ended meanwhile
	return a
}

// asLong bounds each question to another node.
const asLong = 4 * time.Second

// driftOver is how long the clocks are compared: over a round trip of 0.3 ms the result
// is then good to about 130 ppm.
const driftOver = 3 * time.Second
