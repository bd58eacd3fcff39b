package config

import (
	"net/netip"
	"testing"
)

func addrs(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range texts {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func TestSelf(t *testing.T) {
	c, err := Load("testdata/home.toml")
	if err != nil {
		t.Fatal(err)
	}
	c.Nodes[2].Address2 = netip.MustParseAddr("198.51.100.3")
	for _, test := range []struct {
		doc, name string
		local     []netip.Addr
		want, err string
	}{
		{"by address", "", addrs("127.0.0.1", "::1", "192.0.2.12"), "pbx2", ""},
		{"by second address", "", addrs("127.0.0.1", "198.51.100.3"), "pbx3", ""},
		{"by both addresses", "", addrs("192.0.2.13", "198.51.100.3"), "pbx3", ""},
		{"mapped", "", addrs("::ffff:192.0.2.11"), "pbx1", ""},
		{"by name, whatever the addresses", "pbx1", addrs("192.0.2.12"), "pbx1", ""},
		{"a VIP is nobody", "", addrs("192.0.2.101"), "",
			"testdata/home.toml: no node has an address of this machine (192.0.2.101); put the machine's static address into its [[node]], or name the node with --node"},
		{"no address matches none", "", []netip.Addr{{}}, "",
			"testdata/home.toml: no node has an address of this machine (invalid IP); put the machine's static address into its [[node]], or name the node with --node"},
		{"nothing", "", nil, "",
			"testdata/home.toml: no node has an address of this machine (none); put the machine's static address into its [[node]], or name the node with --node"},
		{"two", "", addrs("192.0.2.13", "192.0.2.11"), "",
			"testdata/home.toml: nodes pbx1 and pbx3 both have an address of this machine; name the right one with --node"},
		{"unknown name", "pbx9", addrs("192.0.2.11"), "",
			"testdata/home.toml: no node is called \"pbx9\"; --node takes one of pbx1, pbx2, pbx3"},
	} {
		n, err := c.Self(test.name, test.local)
		switch {
		case test.err == "" && (err != nil || n != c.Node(test.want)):
			t.Errorf("%s: %v, %v", test.doc, n, err)
		case test.err != "" && (n != nil || err == nil || err.Error() != test.err):
			t.Errorf("%s:\ngot  %v\nwant %s", test.doc, err, test.err)
		}
	}
}

func TestSelfListsFewAddresses(t *testing.T) {
	c := &Config{File: "f.toml"}
	_, err := c.Self("", addrs("127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5", "127.0.0.6", "127.0.0.7", "127.0.0.8", "127.0.0.9", "127.0.0.10"))
	want := "f.toml: no node has an address of this machine (127.0.0.1, 127.0.0.2, 127.0.0.3, 127.0.0.4, 127.0.0.5, 127.0.0.6, 127.0.0.7, 127.0.0.8 and 2 more); put the machine's static address into its [[node]], or name the node with --node"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestNode(t *testing.T) {
	c := home()
	if c.Node("pbx2") != &c.Nodes[1] || c.Node("pbx9") != nil || c.Node("") != nil {
		t.Error("Node finds the wrong one")
	}
}
