package keepalived

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// samples are the configurations in keepalived's doc/samples (2.3). Each has a file here
// with the same settings, newly written, and what is special about the sample. Those in
// refused have only virtual servers.
var samples = []struct {
	sample, file string
	has          []string
}{
	{"HTTP_GET.port", "refused/servers.conf", []string{"SSL_GET", "connect_port", "notification_email"}},
	{"IPv6", "refused/servers6.conf", []string{"virtual_server_group", "::50-5f", "#virtual_server"}},
	{"PING_CHECK", "refused/servers.conf", []string{"PING_CHECK", "protocol UDP"}},
	{"SMTP_CHECK", "refused/servers.conf", []string{"SMTP_CHECK", "helo_name \"", "connect_ip"}},
	{"SSL_GET", "balancer.conf", []string{"vrrp_instance", "virtual_server "}},
	{"UDP_CHECK", "refused/servers.conf", []string{"UDP_CHECK", "protocol UDP"}},
	{"conditional_conf", "conditional.conf", []string{"@left", "@right", "@^left"}},
	{"fwmark", "refused/servers.conf", []string{"virtual_server fwmark", "TCP_CHECK"}},
	{"inhibit", "refused/servers.conf", []string{"inhibit_on_failure !", "HTTP_GET"}},
	{"misc_check", "balancer.conf", []string{"MISC_CHECK", "misc_path \""}},
	{"misc_check_arg", "refused/servers.conf", []string{"MISC_CHECK", "'a b'\""}},
	{"quorum", "refused/servers.conf", []string{"quorum_up", "quorum_down", "hysteresis", "alpha", "omega"}},
	{"sample", "balancer.conf", []string{"vrrp_instance", "virtual_server "}},
	{"status_code", "refused/servers.conf", []string{"status_code 200-204 301", "status_code 200 #"}},
	{"track_interface", "vlan.conf", []string{"static_route {", "interface eth0.300", "track_interface {       #", "virtual_routes"}},
	{"virtual_server_group", "refused/servers.conf", []string{"virtual_server group", "fwmark", "-89 80"}},
	{"virtualhost", "refused/servers.conf", []string{"virtualhost", "url {"}},
	{"vrrp", "three-addresses.conf", []string{"notification_email", "smtp_alert", "authentication", "vrrp_instance RTP\n{"}},
	{"vrrp.localcheck", "nine-instances.conf", []string{"weight -", "weight 3", "</dev/tcp/", "lan1 weight 3", "lan0 weight 3", "TENANT_5"}},
	{"vrrp.lvs_syncd", "balancer.conf", []string{"lvs_sync_daemon_interface", "virtual_server "}},
	{"vrrp.routes", "rules.conf", []string{"virtual_routes", "default via"}},
	{"vrrp.routes", "balancer.conf", []string{"static_routes"}},
	{"vrrp.rules", "rules.conf", []string{"static_rules", "virtual_rules", "to 198.51.100./24"}},
	{"vrrp.scripts", "group-scripts.conf", []string{"vrrp_sync_group", "notify_master", "notify_backup", "notify_fault", "state   up   WEB"}},
	{"vrrp.static_ipaddress", "balancer.conf", []string{"static_ipaddress"}},
	{"vrrp.sync", "sync-groups.conf", []string{"group {", "notify_master", "notify_fault"}},
}

// TestSamples: every sample has a counterpart here that becomes a valid file (TestGolden)
// or is refused for the expected reason. With nothing to import, nobody is asked for
// nodes.
func TestSamples(t *testing.T) {
	used := map[string]bool{}
	for _, s := range samples {
		used[s.file] = true
		text, err := os.ReadFile("testdata/" + s.file)
		if err != nil {
			t.Fatal(err)
		}
		for _, has := range s.has {
			if !strings.Contains(string(text), has) {
				t.Errorf("%s stands for keepalived.conf.%s, and has no %q", s.file, s.sample, has)
			}
		}
		_, err = Import(string(text), options)
		if refused := strings.HasPrefix(s.file, "refused/"); refused != (err != nil) || refused && !strings.HasPrefix(err.Error(), "the file has no vrrp_instance; nothing to import") {
			t.Errorf("%s: %v", s.file, err)
		}
	}
	refused, err := filepath.Glob("testdata/refused/*")
	if err != nil || len(refused) == 0 {
		t.Fatalf("%v, %v", refused, err)
	}
	for _, f := range refused {
		if !used[strings.TrimPrefix(f, "testdata/")] {
			t.Errorf("%s stands for no sample", f)
		}
	}
}
