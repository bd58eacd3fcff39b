package commands

// way is where a command runs.
type way int

const (
	onNode    way = iota // on pbx1 of a cluster of three, with its addresses, and with its file for FILE
	alone                // on a machine without a cluster, 192.0.2.11
	elsewhere            // not here: why names the test that covers it
)

// row says what to do with the commands that start with begins. The first row that
// matches counts.
type row struct {
	begins string
	way    way
	before string // shell lines that prepare what the page assumes
	not    string // text of the command that differs in the lab ...
	but    string // ... and what replaces it
	after  string // shell lines that restore things
	want   string // must be in the output
	ends   int    // exit code; 124: it runs until it is ended
	prints bool   // the output must be what the page shows below, except for the first line
	why    string
}

const (
	noSystemd = "no systemd here: test/unit is systemd, test/deb reads what it is told"
	newFile   = "rm -f /etc/sipalive/key /etc/sipalive/sipalive.toml"
)

// table has every command of the pages. A command that matches no row fails the test, and
// so does a row without a command. Give a new command a row that runs it, or that says
// what else covers it.
var table = []row{
	{begins: "make demo", way: elsewhere, why: "test/e2e, TestDemo"},
	{begins: "make test", way: elsewhere, why: "this is it"},
	{begins: "make deb", way: elsewhere, why: "test/deb builds it"},
	{begins: "apt-get ", way: elsewhere, why: "test/deb installs, upgrades, downgrades, removes and purges it"},
	{begins: "systemctl", way: elsewhere, why: noSystemd},
	{begins: "journalctl", way: elsewhere, why: noSystemd + "; cmd/sipalive checks the fields"},

	{begins: "sipalive init", way: alone, before: newFile, want: "On this node:\n  systemctl enable --now sipalive\n", prints: true},
	{begins: "sipalive version", way: alone, want: "sipalive "},
	{begins: "sipalive import", way: alone, before: "mkdir -p /etc/keepalived; cp /run/keepalived.conf /etc/keepalived/", after: "grep -q '^cluster' sipalive.toml"},
	{begins: "nft add rule", way: alone, before: "nft add table inet filter; nft add chain inet filter input '{ type filter hook input priority 0; }'",
		after: "nft list chain inet filter input | grep -q 7946; nft delete table inet filter"},
	{begins: "sysctl --system", way: alone, not: "--system", but: "-p /etc/sysctl.d/60-sipalive.conf", after: "[ $(cat /proc/sys/net/ipv4/ip_nonlocal_bind) = 1 ]"},
	{begins: "install ", way: alone},
	{begins: "sed -n 's/.*name=\"password\"", way: alone, before: "mkdir -p /etc/freeswitch/autoload_configs; cp /run/event_socket.conf.xml /etc/freeswitch/autoload_configs/",
		after: "[ \"$(cat /etc/sipalive/freeswitch.password)\" = ClueCon ]; [ $(stat -c %a /etc/sipalive/freeswitch.password) = 600 ]"},
	{begins: "sipalive keygen >> /etc/sipalive/key", way: alone, before: "rm -f /etc/sipalive/key; install -m 600 /dev/null /etc/sipalive/key; sipalive keygen > /etc/sipalive/key",
		after: "[ $(sort -u /etc/sipalive/key | wc -l) = 2 ]"},
	{begins: "sipalive key rotate", way: elsewhere, why: "test/e2e, TestKeyRotation, also without a node"},
	{begins: "scp -p /etc/sipalive/key", way: elsewhere, why: "test/e2e, TestKeyRotation copies the file"},
	{begins: "sipalive keygen > /etc/sipalive/mover.secret", way: alone, after: "[ $(wc -l < /etc/sipalive/mover.secret) = 1 ]; [ $(stat -c %a /etc/sipalive/mover.secret) = 600 ]"},
	{begins: "usermod -aG sipalive alice", way: alone, before: "groupadd --system sipalive; useradd alice", after: "id -nG alice | grep -qw sipalive"},

	{begins: "sipalive check", way: onNode, want: "nodes: 3, VIPs: 2"},
	{begins: "sipalive doctor", way: elsewhere, why: "test/e2e/doctor asks it on four nodes, test/newcomer as the page says"},
	{begins: "sipalive probe", way: onNode, want: "up"},
	{begins: "sipalive status", way: onNode, want: "VIP "},
	{begins: "sipalive move", way: onNode, want: "pbx3", after: "sipalive failback"},
	{begins: "sipalive failback", way: onNode, before: "sipalive move vip1 pbx3", after: "sipalive failback"},
	{begins: "sipalive drain --wait-calls", way: elsewhere, why: "test/e2e/actions has a FreeSWITCH's event socket"},
	{begins: "sipalive drain", way: onNode, after: "sipalive undrain pbx1; sipalive failback"},
	{begins: "sipalive flush", way: onNode, want: "pbx3"},
	{begins: "sipalive plan", way: onNode, want: "vip2"},
	{begins: "sipalive events --follow", way: onNode, ends: 124},
	{begins: "sipalive events", way: onNode, want: "takeover"},
	{begins: "sipalive role", way: onNode},
	{begins: "sipalive lock NAME -- COMMAND", way: onNode, not: "NAME -- COMMAND", but: "name -- true"},
	{begins: "sipalive lock cdr-import", way: onNode, before: "ln -sf /bin/true /usr/local/bin/import-cdrs"},
	{begins: "sipalive lock db-reboot", way: onNode, before: "ln -sf /bin/true /usr/local/bin/db-answers", not: "systemctl reboot", but: "true",
		after: "sipalive status | grep db-reboot"},
	{begins: "sipalive ping", way: onNode, want: "200 OK"},
	{begins: "sipalive freeze", way: onNode, after: "sipalive thaw pbx1"},
	{begins: "sipalive thaw", way: onNode, before: "sipalive freeze pbx1"},
	{begins: "sipalive adopt", way: onNode},
	{begins: "sipalive reload", way: onNode},
}
