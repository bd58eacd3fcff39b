package doctor

import (
	"encoding/xml"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Sofia is FreeSWITCH's sofia.conf as FreeSWITCH has it in memory.
type Sofia struct {
	AutoRestart bool // on unless turned off (mod_sofia's default)
	Profiles    []Profile
}

// Profile is one SIP profile.
type Profile struct {
	Name, IP    string   // sip-ip
	Registering []string // gateways that register
}

type sofiaXML struct {
	Global   []paramXML `xml:"global_settings>param"`
	Profiles []struct {
		Name     string     `xml:"name,attr"`
		Settings []paramXML `xml:"settings>param"`
		Gateways []struct {
			Name   string     `xml:"name,attr"`
			Params []paramXML `xml:"param"`
		} `xml:"gateways>gateway"`
	} `xml:"profiles>profile"`
}

type paramXML struct {
	Name  string `xml:"name,attr"`
	Value string `xml:"value,attr"`
}

// ParseSofia reads the answer to `xml_locate configuration configuration name
// sofia.conf`: the element as the XML registry or its handler returns it, with all
// variables filled in.
func ParseSofia(text string) (*Sofia, error) {
	var x sofiaXML
	d := xml.NewDecoder(strings.NewReader(text))
	d.Strict = false // people write it by hand
	if err := d.Decode(&x); err != nil {
		return nil, fmt.Errorf("sofia.conf as FreeSWITCH gives it: %w", err)
	}
	if len(x.Profiles) == 0 {
		return nil, fmt.Errorf("sofia.conf as FreeSWITCH gives it has no profile")
	}
	s := &Sofia{AutoRestart: isTrue(value(x.Global, "auto-restart", "true"))}
	for _, p := range x.Profiles {
		out := Profile{Name: p.Name, IP: value(p.Settings, "sip-ip", "")}
		for _, g := range p.Gateways {
			if isTrue(value(g.Params, "register", "true")) { // mod_sofia registers unless told not to
				out.Registering = append(out.Registering, g.Name)
			}
		}
		s.Profiles = append(s.Profiles, out)
	}
	return s, nil
}

// value returns the last parameter with that name, because the last one counts.
func value(params []paramXML, name, otherwise string) string {
	for _, p := range params {
		if p.Name == name {
			otherwise = p.Value
		}
	}
	return otherwise
}

// isTrue is FreeSWITCH's switch_true (switch_utils.c).
func isTrue(text string) bool {
	switch strings.ToLower(text) {
	case "yes", "on", "true", "t", "enabled", "active", "allow":
		return true
	}
	n, err := strconv.Atoi(text)
	return err == nil && n != 0
}

// on returns the profiles at an address.
func (s *Sofia) on(a netip.Addr) (names []string) {
	for _, p := range s.Profiles {
		if ip, err := netip.ParseAddr(p.IP); err == nil && ip == a {
			names = append(names, p.Name)
		}
	}
	return names
}

func (s *Sofia) names() (all []string) {
	for _, p := range s.Profiles {
		all = append(all, p.Name)
	}
	return all
}
