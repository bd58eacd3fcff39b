package examples

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sipalive/config"
)

// kamailioConfig is the part of Debian's kamailio.cfg that the example's commands need.
const kamailioConfig = `
children=1
log_stderror=yes
listen=udp:127.0.0.1:5060
loadmodule "ctl.so"
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "db_text.so"
loadmodule "dispatcher.so"
loadmodule "htable.so"
modparam("dispatcher", "list_file", "DIR/dispatcher.list")
modparam("htable", "db_url", "text:///usr/share/kamailio/dbtext/kamailio")
modparam("htable", "htable", "ipban=>size=8;autoexpire=300;dbtable=htable;")
request_route { exit; }
`

// asDebian runs Debian's Kamailio as its own user, in namespaces of its own. Then it runs
// each line of its input twice: as root without capabilities, and as the user in $2.
const asDebian = `set -e
ip link set lo up
mount -t tmpfs -o mode=755 tmpfs /run
install -d -o kamailio -g kamailio /run/kamailio
kamailio -f $1/kamailio.cfg -u kamailio -g kamailio -DD -E >$1/log 2>&1 &
trap "kill $!; wait $!" EXIT
n=0
until [ -S /run/kamailio/kamailio_ctl ]; do n=$((n+1)); [ $n -lt 400 ] || { cat $1/log; exit 1; }; sleep 0.05; done
while read -r command; do
	setpriv --bounding-set=-all --inh-caps=-all $command && echo "root may"
	echo "$2: $(setpriv --reuid $2 --regid $2 --clear-groups $command)"
done
`

// TestKamailio: a real Kamailio takes the example's commands from the user that they
// name. It would not take them from the agent's own user: root without capabilities.
func TestKamailio(t *testing.T) {
	c, err := config.Load(root + "/kamailio/sipalive.toml")
	if err != nil {
		t.Fatal(err)
	}
	var commands []string
	for _, a := range c.VIPs[0].Actions {
		if a.User != "kamailio" {
			t.Errorf("%q runs as %q", a.Exec, a.User)
		}
		commands = append(commands, strings.Join(a.Exec, " "))
	}
	dir, err := os.MkdirTemp("", "kamailio") // t.TempDir is closed to other users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	for name, text := range map[string]string{"kamailio.cfg": strings.ReplaceAll(kamailioConfig, "DIR", dir), "dispatcher.list": "1 sip:127.0.0.1:5070\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/usr/bin/unshare", "--mount", "--net", "/bin/sh", "-c", asDebian, "sh", dir, "kamailio")
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	out, err := cmd.CombinedOutput()
	text := string(out)
	if err != nil {
		t.Fatalf("%v (make tools installs Kamailio): %s", err, text)
	}
	if strings.Count(text, "kamailio: Ok. ") != len(commands) || strings.Count(text, "Permission denied") != len(commands) || strings.Contains(text, "root may") {
		t.Errorf("%q: %s", commands, text)
	}
}
