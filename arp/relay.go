package arp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// RelayOptions of a Relay.
type RelayOptions struct {
	// Links are the interfaces to speak on, with this node's own address there.
	Links map[string]netip.Addr
	// Gateway finds the next hop of an interface; it is asked now and then.
	Gateway func(ifname string) (netip.Addr, error)
	// Watch are the addresses whose ARP is told to Heard.
	Watch func(netip.Addr) bool
	// Answered hears that the gateway answered a ping that was sent from an
	// address at an instant of Now. Heard hears ARP of others about a watched
	// address. Both are called from the Relay's goroutines and must not wait.
	Answered func(ifname string, from netip.Addr, sent time.Duration)
	Heard    func(HeardARP)
	Now      func() time.Duration // the boot clock
	Random   func() uint64
}

// HeardARP is one ARP packet of another host about a watched address: it claims
// to have it, or asks who does.
type HeardARP struct {
	Address netip.Addr
	Asker   netip.Addr // valid: a question, from this address
}

// RelayStats count since OpenRelay.
type RelayStats struct {
	Relayed  uint64 // datagrams
	Asked    uint64 // pings and questions for an owner
	Answered uint64 // pings
	Errors   uint64 // frames that could not be sent
}

// A Relay speaks to the gateway of each link in raw frames: what the kernel
// would send to a neighbour itself, it sends to the gateway's MAC address, for
// the gateway to pass on (design §4.6). By sockets of the kernel the gateway's
// redirects would shorten that way. Its methods may be called from any
// goroutine; they never wait.
type Relay struct {
	o    RelayOptions
	out  *socket
	arp  *relayTap
	echo *relayTap
	id   uint16 // of its pings

	relayed, asked, answered, errors atomic.Uint64

	mu    sync.Mutex // guards what follows; never held while sending
	links map[string]*relayLink
	pings [256]relayPing
	seq   uint16
	ipID  uint16
}

// relayLink is what is known of the gateway at one interface.
type relayLink struct {
	own     netip.Addr
	gateway netip.Addr   // zero: none
	mac     hardwareAddr // zero: not known yet
	heard   time.Duration
	asked   time.Duration
}

// relayPing is a ping under way.
type relayPing struct {
	token  uint64
	from   netip.Addr
	ifname string // empty: none, or answered
	sent   time.Duration
}

// OpenRelay opens its sockets in the network namespace of the caller. It needs
// CAP_NET_RAW.
func OpenRelay(o RelayOptions) (r *Relay, err error) {
	r = &Relay{o: o, id: uint16(o.Random()), links: map[string]*relayLink{}}
	r.SetLinks(o.Links)
	if r.out, err = openSocket(); err == nil {
		if r.arp, err = openRelayTap(unix.ETH_P_ARP, nil); err == nil {
			r.echo, err = openRelayTap(unix.ETH_P_IP, echoReplies(r.id))
		}
	}
	if err != nil {
		_ = r.Close()
		return nil, fmt.Errorf("open raw sockets for the gateway: %w", explain(err))
	}
	return r, nil
}

// SetLinks replaces the links; what is known of a gateway stays where its link
// does.
func (r *Relay) SetLinks(links map[string]netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name := range r.links {
		if _, stays := links[name]; !stays {
			delete(r.links, name)
		}
	}
	for name, own := range links {
		if l := r.links[name]; l != nil {
			l.own = own
		} else {
			r.links[name] = &relayLink{own: own}
		}
	}
}

// names are the links' interfaces.
func (r *Relay) names() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Keys(r.links))
}

// Close closes the sockets, which ends Run.
func (r *Relay) Close() error {
	var errs []error
	if r.out != nil {
		errs = append(errs, r.out.close())
	}
	for _, t := range []*relayTap{r.arp, r.echo} {
		if t != nil {
			errs = append(errs, t.close())
		}
	}
	return errors.Join(errs...)
}

// Stats reads the counters.
func (r *Relay) Stats() RelayStats {
	return RelayStats{Relayed: r.relayed.Load(), Asked: r.asked.Load(), Answered: r.answered.Load(), Errors: r.errors.Load()}
}

// Figures of the gateway's resolution: looked for at once and then every second
// until it answers, then asked again every ten, for its MAC address may change.
const (
	resolveSoon  = time.Second
	resolveAgain = 10 * time.Second
)

// Run hears answers and keeps the gateways' MAC addresses until ctx ends.
func (r *Relay) Run(ctx context.Context) error {
	var readers sync.WaitGroup
	readers.Go(func() { r.arp.read(r.hearARP) })
	readers.Go(func() { r.echo.read(r.hearEcho) })
	tick := time.NewTicker(resolveSoon)
	defer tick.Stop()
	for {
		for _, name := range r.names() {
			r.resolve(name)
		}
		select {
		case <-ctx.Done():
			_ = r.arp.close()
			_ = r.echo.close()
			readers.Wait()
			return nil
		case <-tick.C:
		}
	}
}

// resolve asks for the gateway's MAC address when it is due.
func (r *Relay) resolve(ifname string) {
	gateway, err := r.o.Gateway(ifname)
	if err != nil || !gateway.Is4() {
		gateway = netip.Addr{}
	}
	now := r.o.Now()
	r.mu.Lock()
	l := r.links[ifname]
	if l == nil {
		r.mu.Unlock()
		return
	}
	if l.gateway != gateway {
		l.gateway, l.mac, l.asked = gateway, hardwareAddr{}, 0
	}
	due := gateway.IsValid() && (l.mac == hardwareAddr{} || now >= l.asked+resolveAgain)
	if due {
		l.asked = now
	}
	r.mu.Unlock()
	if due {
		_ = r.question(ifname, gateway)
	}
}

// Gateway is the next hop of an interface, as far as it is known: invalid while
// there is none or it has not answered ARP.
func (r *Relay) Gateway(ifname string) netip.Addr {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := r.links[ifname]; l != nil && l.mac != (hardwareAddr{}) {
		return l.gateway
	}
	return netip.Addr{}
}

var errNoGateway = errors.New("the gateway's MAC address is not known (is there a default route, and does it answer ARP?)")

// link is what frames to the gateway of an interface need.
func (r *Relay) link(ifname string) (l relayLink, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := r.links[ifname]
	if known == nil || known.mac == (hardwareAddr{}) {
		return l, errNoGateway
	}
	return *known, nil
}

// Send sends a UDP datagram through the gateway of an interface, from this
// node's own address there.
func (r *Relay) Send(ifname string, port uint16, to netip.AddrPort, payload []byte) error {
	l, err := r.link(ifname)
	if err == nil {
		r.mu.Lock()
		r.ipID++
		id := r.ipID
		r.mu.Unlock()
		for _, f := range udpFrames(l.mac, netip.AddrPortFrom(l.own, port), to, id, payload) {
			err = errors.Join(err, r.send(ifname, f))
		}
	}
	if err != nil {
		return fmt.Errorf("relay to %s by %s: %w", to, ifname, err)
	}
	r.relayed.Add(1)
	return nil
}

// Ping asks the gateway of an interface from an address of this node; Answered
// hears of the answer, if it comes from the gateway itself.
func (r *Relay) Ping(ifname string, from netip.Addr) error {
	l, err := r.link(ifname)
	if err != nil {
		return fmt.Errorf("ping the gateway by %s: %w", ifname, err)
	}
	if !from.IsValid() {
		from = l.own
	}
	r.mu.Lock()
	r.seq++
	seq := r.seq
	p := relayPing{token: r.o.Random(), from: from, ifname: ifname, sent: r.o.Now()}
	r.pings[seq%uint16(len(r.pings))] = p
	r.mu.Unlock()
	r.asked.Add(1)
	if err := r.send(ifname, echoFrame(l.mac, from, l.gateway, r.id, seq, p.token)); err != nil {
		return fmt.Errorf("ping %s from %s by %s: %w", l.gateway, from, ifname, err)
	}
	return nil
}

// AskOwner asks by ARP who has an address. Its sender is this node's own
// address: only an announcement would speak for the VIP.
func (r *Relay) AskOwner(ifname string, addr netip.Addr) error {
	r.asked.Add(1)
	if err := r.question(ifname, addr); err != nil {
		return fmt.Errorf("ask for %s by %s: %w", addr, ifname, err)
	}
	return nil
}

func (r *Relay) question(ifname string, addr netip.Addr) error {
	r.mu.Lock()
	l := r.links[ifname]
	if l == nil {
		r.mu.Unlock()
		return errNoGateway
	}
	own := l.own
	r.mu.Unlock()
	return r.sendARP(ifname, own, addr)
}

func (r *Relay) sendARP(ifname string, own, addr netip.Addr) error {
	f := announcement(operationRequest, hardwareAddr{}, addr)
	sender := own.As4()
	copy(f[28:32], sender[:])
	return r.send(ifname, f[:])
}

// send puts this node's MAC address into a frame and hands it to the interface.
func (r *Relay) send(ifname string, f []byte) error {
	err := r.out.with(func(fd int) error {
		index, mac, err := look(fd, ifname)
		if err != nil {
			return err
		}
		copy(f[6:12], mac[:])
		protocol := binary.BigEndian.Uint16(f[12:])
		if protocol == unix.ETH_P_ARP {
			copy(f[22:28], mac[:])
		}
		to := unix.SockaddrLinklayer{Protocol: protocol>>8 | protocol<<8, Ifindex: index, Halen: 6}
		copy(to.Addr[:], f[:6])
		return unix.Sendto(fd, f, 0, &to)
	})
	if err != nil {
		r.errors.Add(1)
		return explain(err)
	}
	return nil
}
