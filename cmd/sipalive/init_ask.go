package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

func isTerminal(in io.Reader) bool {
	f, is := in.(*os.File)
	if !is {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// asker asks one question after another.
type asker struct {
	in  *bufio.Scanner
	out io.Writer
}

var errNoAnswer = errors.New("init: the answers end here; nothing was written")

// line asks until take accepts an answer. An empty answer stands for the default.
func (a *asker) line(question, def string, take func(string) error) error {
	for {
		prompt := question
		if def != "" {
			prompt += " [" + def + "]"
		}
		if _, err := fmt.Fprint(a.out, prompt+": "); err != nil {
			return err
		}
		if !a.in.Scan() {
			return errors.Join(errNoAnswer, a.in.Err())
		}
		answer := strings.TrimSpace(a.in.Text())
		if answer == "" {
			answer = def
		}
		err := take(answer)
		if err == nil {
			return nil
		}
		fmt.Fprintf(a.out, "  %v\n", err)
	}
}

// list asks for one more entry until the answer is empty.
func (a *asker) list(question string, least int, into *[]named, name string) error {
	for {
		before := len(*into)
		err := a.line(question, "", func(answer string) error {
			if answer == "" {
				if len(*into) < least {
					return errors.New("one is needed")
				}
				return nil
			}
			n, err := parseNamed(answer, fmt.Sprintf(name, len(*into)+1))
			if err == nil {
				*into = append(*into, n)
			}
			return err
		})
		if err != nil || len(*into) == before {
			return err
		}
	}
}

// ask asks for what the flags have not said.
func (w *wish) ask(in io.Reader, out io.Writer, m machine) error {
	a := &asker{bufio.NewScanner(in), out}
	if w.cluster == "" {
		if err := a.line("Name of the cluster", "pbx", func(s string) error { w.cluster = s; return nil }); err != nil {
			return err
		}
	}
	if len(w.nodes) == 0 {
		if err := w.askNodes(a, m); err != nil {
			return err
		}
	}
	if len(w.vips) == 0 {
		if err := a.list("Floating address, NAME=ADDRESS or ADDRESS (empty: no more)", 1, &w.vips, "vip%d"); err != nil {
			return err
		}
	}
	if w.iface != "" || w.own(m) == nil {
		return nil
	}
	return a.line("Their interface", m.interfaceOf(*w.own(m)), func(s string) error {
		if _, err := net.InterfaceByName(s); err != nil {
			return fmt.Errorf("%q: this machine has no such interface (ip link lists them)", s)
		}
		w.iface = s
		return nil
	})
}

func (w *wish) askNodes(a *asker, m machine) error {
	def := ""
	host, _ := os.Hostname() // "": no proposal
	if host, _, _ = strings.Cut(host, "."); host != "" && len(m.addresses) > 0 {
		def = host + "=" + m.addresses[0].prefix.Addr().String()
	}
	if err := a.line("This node, NAME=ADDRESS", def, func(s string) error {
		n, err := parseNamed(s, "")
		if err == nil && !m.has(n.address) {
			err = fmt.Errorf("%s is not on this machine", n.address)
		}
		if err == nil {
			w.nodes = []named{n}
		}
		return err
	}); err != nil {
		return err
	}
	if err := a.list("Another PBX node, NAME=ADDRESS (empty: no more)", 0, &w.nodes, ""); err != nil {
		return err
	}
	if len(w.nodes) > 2 || len(w.witnesses) > 0 {
		return nil
	}
	return a.list("Two have no majority once one is gone. A witness that only votes, NAME=ADDRESS (empty: no more)", 0, &w.witnesses, "")
}

func (m machine) interfaceOf(n named) string {
	for _, a := range m.addresses {
		if a.prefix.Addr() == n.address {
			return a.iface
		}
	}
	return ""
}
