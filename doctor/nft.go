package doctor

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Ruleset is what `nft -j list ruleset` printed (libnftables-json(5)).
type Ruleset struct {
	chains map[string]*chain // by family, table and name
	sets   map[string][]any  // by family, table and name: elements
}

type chain struct {
	Family string   `json:"family"`
	Table  string   `json:"table"`
	Name   string   `json:"name"`
	Type   string   `json:"type"`
	Hook   string   `json:"hook"`
	Prio   priority `json:"prio"`
	Policy string   `json:"policy"`
	Dev    devices  `json:"dev"` // only for the family netdev; nft 1.0.6 does not print it
	rules  []rule
}

// devices is one name or several.
type devices []string

func (d *devices) UnmarshalJSON(raw []byte) error {
	var one string
	if json.Unmarshal(raw, &one) == nil {
		*d = devices{one}
		return nil
	}
	return json.Unmarshal(raw, (*[]string)(d))
}

// priority is a number. Some versions print a name instead; then the order among the
// chains of one hook is unknown. That does not matter, because all of them have to
// accept.
type priority int

func (p *priority) UnmarshalJSON(raw []byte) error {
	n, _ := strconv.Atoi(string(raw))
	*p = priority(n)
	return nil
}

type rule struct {
	Family  string           `json:"family"`
	Table   string           `json:"table"`
	Chain   string           `json:"chain"`
	Handle  int              `json:"handle"`
	Comment string           `json:"comment"`
	Expr    []map[string]any `json:"expr"`
}

type set struct {
	Family string `json:"family"`
	Table  string `json:"table"`
	Name   string `json:"name"`
	Elem   []any  `json:"elem"`
}

// ParseRuleset reads the output of `nft -j list ruleset`.
func ParseRuleset(text []byte) (*Ruleset, error) {
	var doc struct {
		Objects []struct {
			Chain *chain `json:"chain"`
			Rule  *rule  `json:"rule"`
			Set   *set   `json:"set"`
			Map   *set   `json:"map"`
		} `json:"nftables"`
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return nil, fmt.Errorf("read the rules of nftables: %w", err)
	}
	r := &Ruleset{chains: map[string]*chain{}, sets: map[string][]any{}}
	for _, o := range doc.Objects {
		switch {
		case o.Chain != nil:
			r.chains[id(o.Chain.Family, o.Chain.Table, o.Chain.Name)] = o.Chain
		case o.Set != nil:
			r.sets[id(o.Set.Family, o.Set.Table, o.Set.Name)] = o.Set.Elem
		case o.Map != nil:
			r.sets[id(o.Map.Family, o.Map.Table, o.Map.Name)] = o.Map.Elem
		}
	}
	for _, o := range doc.Objects {
		if o.Rule == nil {
			continue
		}
		if c := r.chains[id(o.Rule.Family, o.Rule.Table, o.Rule.Chain)]; c != nil {
			c.rules = append(c.rules, *o.Rule)
		}
	}
	return r, nil
}

func id(family, table, name string) string { return family + " " + table + " " + name }

// Packet is the first packet of a flow, so connection tracking knows nothing of it.
type Packet struct {
	Leaving  bool   // this machine sends it; otherwise it arrives here
	On       string // the interface
	From, To netip.AddrPort
	Protocol string // udp or tcp
}

// hooks returns the hooks that the packet passes, in order.
func (p Packet) hooks() []string {
	if p.Leaving {
		return []string{"output", "postrouting", "egress"}
	}
	return []string{"ingress", "prerouting", "input"}
}

// Fate is what happens to a packet. A rule that may drop it counts as dropping it, but
// not for sure.
type Fate struct {
	Dropped bool
	Sure    bool   // every rule on the way was understood
	By      string // if Dropped: the rule, or the chain whose policy drops it
	List    string // if Dropped: the command that shows the chain
}

// Fate returns what happens to p. Every chain at its hooks has to accept it. A chain that
// surely drops it decides, whatever the others do.
func (r *Ruleset) Fate(p Packet) Fate {
	all, doubt := Fate{Sure: true}, Fate{}
	for _, c := range r.base(p) {
		w := walk{r: r, p: p, sure: true}
		w.chain(c, 0)
		if w.verdict == "" {
			w.verdict = cmp.Or(c.Policy, "accept")
			w.by = fmt.Sprintf("the policy of chain %s in table %s %s", c.Name, c.Family, c.Table)
			w.at = c
		}
		if w.verdict == "drop" && c.Family == "netdev" && len(c.Dev) == 0 {
			w.sure = false // the chain may belong to another interface
		}
		all.Sure, doubt.By = all.Sure && w.sure, cmp.Or(doubt.By, w.doubt)
		if doubt.List == "" && w.doubt != "" {
			doubt.List = shows(w.doubtAt)
		}
		if w.verdict == "drop" && (w.sure || !all.Dropped) {
			all.Dropped, all.By, all.List = true, w.by, shows(w.at)
			if all.Sure = w.sure; all.Sure {
				return all
			}
		}
	}
	if doubt.By != "" && !all.Dropped {
		doubt.Dropped = true
		return doubt
	}
	return all
}

func shows(c *chain) string {
	return fmt.Sprintf("nft -a list chain %s %s %s", c.Family, c.Table, c.Name)
}

// base returns the base chains that the packet meets, in order.
func (r *Ruleset) base(p Packet) (met []*chain) {
	families, hooks := []string{"netdev", "inet", "ip"}, p.hooks()
	if p.From.Addr().Is6() {
		families[2] = "ip6"
	}
	for _, c := range r.chains {
		here := len(c.Dev) == 0 || slices.Contains(c.Dev, p.On)
		if c.Type != "nat" && here && slices.Contains(hooks, c.Hook) && slices.Contains(families, c.Family) {
			met = append(met, c)
		}
	}
	slices.SortFunc(met, func(a, b *chain) int {
		return cmp.Or(cmp.Compare(slices.Index(hooks, a.Hook), slices.Index(hooks, b.Hook)), cmp.Compare(a.Prio, b.Prio),
			strings.Compare(a.Table+" "+a.Name, b.Table+" "+b.Name))
	})
	return met
}

const (
	// maxDepth is the kernel's limit NFT_JUMP_STACK_SIZE.
	maxDepth = 16
	// maxSteps is more rules than any packet should meet. It ends the walk through chains
	// that jump to each other, which the kernel refuses.
	maxSteps = 100_000
)

// walk is a packet's path through one base chain.
type walk struct {
	r       *Ruleset
	p       Packet
	sure    bool
	steps   int
	verdict string // accept or drop; "": undecided
	by      string
	at      *chain
	doubt   string // the first rule that may drop the packet but is not understood
	doubtAt *chain
}

// chain walks through one chain. A rule that returns ends it.
func (w *walk) chain(c *chain, depth int) {
	if depth > maxDepth {
		w.sure = false
		return
	}
	for _, rule := range c.rules {
		if w.steps++; w.steps > maxSteps {
			w.sure = false
			return
		}
		if w.rule(c, rule, depth) || w.verdict != "" {
			return
		}
	}
}

// rule applies one rule and reports whether to skip the rest of the chain.
func (w *walk) rule(c *chain, rule rule, depth int) (leave bool) {
	certain := yes
	for _, e := range rule.Expr {
		for kind, body := range e {
			switch kind {
			case "match":
				certain = min(certain, w.match(c, body))
			case "vmap":
				kind, body = w.look(c, body)
				if kind == "" {
					continue
				}
				if kind == "?" {
					w.sure = false
					continue
				}
				if certain == yes {
					return w.act(c, rule, kind, body, depth)
				}
				w.sure = w.sure && certain == no
			case "counter", "log", "comment", "mangle", "notrack", "meta":
			case "accept", "drop", "reject", "return", "jump", "goto":
				if certain == yes {
					return w.act(c, rule, kind, body, depth)
				}
				w.doubts(c, rule, kind)
			case "limit", "xt": // may match or not
				switch target := targetOf(kind, body); {
				case target == "REJECT" && certain == yes:
					return w.act(c, rule, "reject", nil, depth)
				case target == "REJECT":
					w.doubts(c, rule, "reject")
				case target != "":
					w.sure = false
				}
				certain = min(certain, maybe)
			default: // queue, synproxy and whatever is newer in nft: it may drop
				certain, w.sure = min(certain, maybe), false
			}
			if certain == no {
				return false
			}
		}
	}
	return false
}

// targetOf returns the name of an iptables target such as REJECT or NFQUEUE, which ends a
// rule. It returns "" for an iptables match, whose contents nft does not print.
func targetOf(kind string, body any) string {
	xt, _ := body.(map[string]any)
	if kind != "xt" || xt["type"] == "match" {
		return ""
	}
	return cmp.Or(text(xt["name"]), "?")
}

// doubts records a rule that may or may not apply. Only one that drops or rejects is
// kept.
func (w *walk) doubts(c *chain, rule rule, kind string) {
	w.sure = false
	if w.doubt == "" && (kind == "drop" || kind == "reject") {
		w.doubt, w.doubtAt = rule.named(c, kind), c
	}
}

func (r rule) named(c *chain, kind string) string {
	return fmt.Sprintf("rule %d of chain %s in table %s %s (%s)", r.Handle, c.Name, c.Family, c.Table, cmp.Or(r.Comment, kind))
}

func (w *walk) act(c *chain, rule rule, kind string, body any, depth int) (leave bool) {
	switch kind {
	case "accept":
		w.verdict = kind
	case "drop", "reject":
		w.verdict, w.at = "drop", c
		w.by = rule.named(c, kind)
	case "return":
		return true
	case "jump", "goto":
		to, _ := body.(map[string]any)
		target, _ := to["target"].(string)
		if next := w.r.chains[id(c.Family, c.Table, target)]; next != nil {
			w.chain(next, depth+1)
		} else {
			w.sure = false
		}
		return kind == "goto"
	}
	return false
}
