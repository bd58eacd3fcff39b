package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Match selects frames that cross the switch. A zero field matches everything. The
// phone's frames cross the switch at the router's port.
type Match struct {
	From, To  *Host
	BothWays  bool   // also from To to From
	EtherType uint16 // e.g. unix.ETH_P_ARP
	Protocol  uint8  // IPv4 protocol, e.g. unix.IPPROTO_UDP
	Port      uint16 // UDP or TCP, source or destination; needs Protocol
	ToPort    bool   // match Port as the destination only: requests, not their answers
}

type ruleKind int

const (
	dropAll   ruleKind = iota // every frame between two ports
	dropSome                  // a percentage, between two ports or everywhere
	dropMatch                 // the frames that a Match selects
)

// rule is one rule of the switch's forward chain.
type rule struct {
	kind     ruleKind
	from, to *Host
	percent  float64
	match    Match
	offset   uint32 // of the port in the transport header: 0 source, 2 destination
}

func (m Match) rules() ([]rule, error) {
	if m.Port != 0 && m.Protocol != unix.IPPROTO_UDP && m.Protocol != unix.IPPROTO_TCP {
		return nil, fmt.Errorf("block port %d: want Protocol UDP or TCP with it", m.Port)
	}
	if m.ToPort && m.Port == 0 {
		return nil, errors.New("block a destination port: want Port")
	}
	if m.Protocol != 0 && m.EtherType != 0 && m.EtherType != unix.ETH_P_IP {
		return nil, fmt.Errorf("block protocol %d: want no EtherType, or IPv4, with it", m.Protocol)
	}
	offsets := []uint32{0}
	switch {
	case m.ToPort:
		offsets = []uint32{2}
	case m.Port != 0:
		offsets = []uint32{0, 2}
	}
	var rules []rule
	for _, offset := range offsets {
		r := rule{kind: dropMatch, from: m.From, to: m.To, match: m, offset: offset}
		rules = append(rules, r)
		if m.BothWays {
			r.from, r.to = m.To, m.From
			rules = append(rules, r)
		}
	}
	return rules, nil
}

func (l *Lab) addRules(rules ...rule) error {
	return l.setRules(func(rule) bool { return false }, rules...)
}

// setRules removes the rules for which drop returns true, adds others and loads the
// result in one transaction. So there is no moment with only half of the change.
func (l *Lab) setRules(drop func(rule) bool, add ...rule) error {
	l.faults.mu.Lock()
	defer l.faults.mu.Unlock()
	next := slices.DeleteFunc(slices.Clone(l.faults.rules), drop)
	for _, r := range add {
		if r.from == l.phone || r.to == l.phone {
			return errors.New("fault on the switch: the phone has no port there, name the router")
		}
		if r.kind != dropSome || r.percent > 0 {
			next = append(next, r)
		}
	}
	if len(next) == 0 && len(l.faults.rules) == 0 {
		return nil // a lab that never used a rule needs no nf_tables
	}
	if err := l.loadRules(next); err != nil {
		return fmt.Errorf("load %d rules into the switch: %w (needs nf_tables with the bridge family)", len(next), err)
	}
	l.faults.rules = next
	return nil
}

func (l *Lab) loadRules(rules []rule) error {
	conn, err := nftables.New(nftables.WithNetNSFd(int(l.bridge.fd)))
	if err != nil {
		return err
	}
	table := conn.AddTable(&nftables.Table{Name: "lab", Family: nftables.TableFamilyBridge})
	accept := nftables.ChainPolicyAccept
	chain := conn.AddChain(&nftables.Chain{
		Name: "forward", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &accept,
	})
	conn.FlushChain(chain)
	for _, r := range rules {
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: r.expressions()})
	}
	return conn.Flush()
}

// expressions translates a rule. The comments show it in nft's syntax.
func (r rule) expressions() []expr.Any {
	var e []expr.Any
	if r.from != nil { // iifname "pbx1"
		e = append(e, meta(expr.MetaKeyIIFNAME), equal(interfaceName(r.from.Name)))
	}
	if r.to != nil { // oifname "pbx2"
		e = append(e, meta(expr.MetaKeyOIFNAME), equal(interfaceName(r.to.Name)))
	}
	switch m := r.match; {
	case m.Protocol != 0: // ether type ip, ip protocol udp
		e = append(e, meta(expr.MetaKeyPROTOCOL), equal(binary.BigEndian.AppendUint16(nil, unix.ETH_P_IP)),
			meta(expr.MetaKeyL4PROTO), equal([]byte{m.Protocol}))
		if m.Port != 0 { // th sport 5060, th dport 5060
			e = append(e, &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: r.offset, Len: 2},
				equal(binary.BigEndian.AppendUint16(nil, m.Port)))
		}
	case m.EtherType != 0: // ether type arp
		e = append(e, meta(expr.MetaKeyPROTOCOL), equal(binary.BigEndian.AppendUint16(nil, m.EtherType)))
	}
	if r.kind == dropSome && r.percent < 100 { // meta random < 858993459; random bytes have no byte order
		limit := uint32(r.percent / 100 * math.MaxUint32)
		e = append(e, meta(expr.MetaKeyPRANDOM), &expr.Cmp{Op: expr.CmpOpLt, Register: 1, Data: binary.BigEndian.AppendUint32(nil, limit)})
	}
	return append(e, &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop})
}

func meta(key expr.MetaKey) expr.Any { return &expr.Meta{Key: key, Register: 1} }

func equal(data []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data} }

// interfaceName pads a name with zeros to the kernel's 16 bytes.
func interfaceName(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}
