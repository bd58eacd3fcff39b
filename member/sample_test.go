package member

import (
	"encoding/binary"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"sipalive/elect"
)

// messages are all messages that elect can send, by name. TestEveryMessageIsCarried keeps
// the list complete.
var messages = map[string]elect.Message{
	"Heartbeat": elect.Heartbeat{},
	"Ask":       elect.Ask{},
	"Answer":    elect.Answer{},
	"Prepare":   elect.Prepare{},
	"Ready":     elect.Ready{},
	"Release":   elect.Release{},
	"Released":  elect.Released{},
	"Passed":    elect.Passed{},
	"Request":   elect.Request{},
	"Reply":     elect.Reply{},
	"Report":    elect.Report{},
	"Keep":      elect.Keep{},
	"Kept":      elect.Kept{},

	"Connections": elect.Connections{},
	"Timeline":    elect.Timeline{},
}

// endpoints makes cmp compare addresses with ==.
var endpoints = cmpopts.EquateComparable(netip.AddrPort{})

func messageNames() []string { return slices.Sorted(maps.Keys(messages)) }

// source gives the values for the leaves of a message that fill builds.
type source interface {
	number() uint64
	enum(first, last uint8) uint8
	flag() bool
	duration(limit time.Duration) time.Duration
	name() string
	vip() string
	text() string
	length(limit int) int
}

// enums are elect's enumerations with the values that a packet may carry. fill fails on a
// type that is missing here.
var enums = map[reflect.Type][2]uint8{
	reflect.TypeFor[elect.SIPState]():    {0, uint8(lastSIPState)},
	reflect.TypeFor[elect.Cause]():       {0, uint8(lastCause)},
	reflect.TypeFor[elect.Why]():         {0, uint8(lastWhy)},
	reflect.TypeFor[elect.RouterState](): {0, uint8(lastRouterState)},
	reflect.TypeFor[elect.Refusal]():     {0, uint8(lastRefusal)},
	reflect.TypeFor[elect.CommandKind](): {1, uint8(lastCommand)},
	reflect.TypeFor[elect.MarkKind]():    {0, uint8(lastMark)},
}

// fill gives every field of v, however deep, a value from s.
func fill(v reflect.Value, s source, field string) {
	switch v.Type() {
	case reflect.TypeFor[elect.Node](), reflect.TypeFor[elect.Brief]():
		v.SetString(s.name())
		return
	case reflect.TypeFor[elect.VIPID]():
		v.SetString(s.vip())
		return
	case reflect.TypeFor[time.Duration]():
		limit := maxAge
		if field == "Lease" {
			limit = maxLease
		}
		v.SetInt(int64(s.duration(limit)))
		return
	case reflect.TypeFor[netip.AddrPort]():
		a := netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, uint32(s.number()))))
		if s.flag() {
			a = netip.AddrFrom16([16]byte(binary.BigEndian.AppendUint64(append(a.AsSlice(), 1, 2, 3, 4), s.number())))
		}
		v.Set(reflect.ValueOf(netip.AddrPortFrom(a, uint16(s.number()))))
		return
	case reflect.TypeFor[elect.VoterList]():
		var names []elect.Node
		for range s.length(maxVoters) {
			names = append(names, elect.Node(s.name()))
		}
		if names != nil {
			v.Set(reflect.ValueOf(elect.NewVoterList(names...)))
		}
		return
	}
	if bounds, ok := enums[v.Type()]; ok {
		v.SetUint(uint64(s.enum(bounds[0], bounds[1])))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), s, v.Type().Field(i).Name)
		}
	case reflect.Slice:
		if n := s.length(maxNodes); n > 0 {
			v.Set(reflect.MakeSlice(v.Type(), n, n))
		}
		for i := range v.Len() {
			fill(v.Index(i), s, field)
		}
	case reflect.Uint64, reflect.Uint32, reflect.Uint16:
		v.SetUint(s.number() & (1<<v.Type().Bits() - 1))
	case reflect.Bool:
		v.SetBool(s.flag())
	case reflect.String:
		v.SetString(s.text())
	default:
		panic(fmt.Sprintf("field %s: the test cannot fill a %s; teach it, and the codec", field, v.Type()))
	}
}

func filled(m elect.Message, s source) elect.Message {
	v := reflect.New(reflect.TypeOf(m)).Elem()
	fill(v, s, "")
	return v.Interface().(elect.Message)
}

// nonZero gives values that are all set and, if there is room, all different.
type nonZero struct{ n uint64 }

func (s *nonZero) next() uint64                         { s.n++; return s.n * 1000003 }
func (s *nonZero) number() uint64                       { return s.next() }
func (s *nonZero) enum(_, last uint8) uint8             { return last }
func (s *nonZero) flag() bool                           { return true }
func (s *nonZero) duration(time.Duration) time.Duration { return time.Duration(s.next()) }
func (s *nonZero) name() string                         { return fmt.Sprint("node", s.next()) }
func (s *nonZero) vip() string {
	n := s.next()
	return fmt.Sprintf("10.%d.%d.%d", byte(n), byte(n>>8), byte(n>>16))
}
func (s *nonZero) text() string   { return fmt.Sprint("words ", s.next()) }
func (s *nonZero) length(int) int { return 2 }

// drawn gives values that rapid draws.
type drawn struct{ t *rapid.T }

func (s drawn) number() uint64        { return rapid.Uint64().Draw(s.t, "number") }
func (s drawn) enum(a, b uint8) uint8 { return rapid.Uint8Range(a, b).Draw(s.t, "enum") }
func (s drawn) flag() bool            { return rapid.Bool().Draw(s.t, "flag") }
func (s drawn) name() string {
	return rapid.StringMatching(`[a-zé][a-z0-9.-]{0,61}`).Draw(s.t, "name")
}
func (s drawn) text() string {
	return rapid.StringMatching(`[ -~äß€🙂]{0,100}`).Draw(s.t, "text")
}
func (s drawn) length(limit int) int { return rapid.IntRange(0, min(limit, 6)).Draw(s.t, "length") }
func (s drawn) duration(limit time.Duration) time.Duration {
	return time.Duration(rapid.Int64Range(0, int64(limit)).Draw(s.t, "duration"))
}
func (s drawn) vip() string {
	return rapid.OneOf(
		rapid.StringMatching(`(25[0-5]|1[0-9]{2}|[1-9]?[0-9])(\.(25[0-5]|1[0-9]{2}|[1-9]?[0-9])){3}`),
		rapid.SampledFrom([]string{"2001:db8::1", "::", "::ffff:192.0.2.1", "fe80::1%eth0", "192.0.2.01", "2001:DB8::1"}),
		rapid.StringMatching(`role:[a-z0-9-]{1,63}`),
	).Draw(s.t, "vip")
}

// electSource parses the current source of the elect room.
func electSource(t *testing.T) []*ast.File {
	t.Helper()
	paths, err := filepath.Glob("../elect/*.go")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no elect room beside this one: %v", err)
	}
	var files []*ast.File
	for _, path := range paths {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	return files
}
