package newcomer

import (
	"os"
	"runtime"
	"testing"
)

func TestSiteOnly(t *testing.T) {
	d := &diary{t: t}
	runtime.LockOSThread()
	s := newSite(t, os.Getenv("DEB"))
	d.part("From the package to three nodes")
	s.install(d)
	s.configure(d)
	d.note("cluster", "until every VIP is held, and the PBX answers on it", s.settle)
	s.look(d)
	t.Log(d.table())
}
