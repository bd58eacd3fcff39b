package view

import (
	"fmt"
	"math"
	"os"
	"strings"
	"testing"

	"sipalive/control"
	"sipalive/test/cluster"
)

var screens = []screen{
	{"desk-light", 1200, 900, false, "light"},
	{"desk-dark", 1200, 900, false, "dark"},
	{"phone-light", 390, 844, true, "light"},
	{"phone-dark", 390, 844, true, "dark"},
}

// TestPage watches a host fall silent, on the status page of the node that takes over its
// VIP, in a browser behind the router, where phones are.
func TestPage(t *testing.T) {
	c := start(t, actionsOf)
	site := fmt.Sprintf("http://%s:%d/", c.Node(2).Addr, port)
	b := openBrowser(t, c.Phone(), site)
	b.shows("that it is live", `document.querySelector("#link").className === "live"`)
	b.shows("who holds what", `document.querySelector("[data-vip=vip1] .holder").textContent === "pbx1" &&
		document.querySelector("[data-vip=vip2] .holder").textContent === "pbx2"`)
	b.shows("nothing unusual", `document.querySelector("#unusual").innerText === "nothing"`)
	b.shows("who sees whose PBX", `[...document.querySelectorAll("#views td")].filter((d) => d.innerText === "up").length === 9`)

	if err := c.Cut(c.Node(0)); err != nil {
		t.Fatal(err)
	}
	b.shows("the takeover", `document.querySelector("[data-vip=vip1] .holder").textContent === "pbx3" &&
		document.querySelector("article[data-takeover] .felt")?.textContent.startsWith("A phone had nobody to talk to for at most ")`)
	b.shows("what is unusual", `document.querySelector("#unusual").innerText.includes("pbx1 silent") && document.title.startsWith("(")`)
	b.shows("the whole timeline", `document.querySelector("article[data-takeover] [data-row='sip answered']") && document.querySelector("article[data-takeover] [data-row='router proven']") !== null`)
	toScale(t, b, c)
	failedAction(t, b, c)
	toldToAll(t, b, c)
	for _, s := range screens {
		b.on(s)
		b.shows("all in the width of "+s.name, fmt.Sprintf(`document.documentElement.scrollWidth <= %d && matchMedia("(prefers-color-scheme: %s)").matches`, s.width, s.scheme))
		var paper string
		if err := b.eval(`getComputedStyle(document.body).backgroundColor`, &paper); err != nil {
			t.Fatal(err)
		}
		if dark := paper == "rgb(20, 23, 26)"; dark != (s.scheme == "dark") {
			t.Errorf("%s: the page's ground is %s", s.name, paper)
		}
		b.picture(s.name)
	}
	anotherLease(t, b, c)

	if err := c.Agent(2).Stop(); err != nil {
		t.Fatal(err)
	}
	b.shows("that its agent is frozen", `document.querySelector("#link").className === "lost" && document.body.classList.contains("stale")`)
	if err := c.Agent(2).Cont(); err != nil {
		t.Fatal(err)
	}
	b.shows("that it is live again", `document.querySelector("#link").className === "live"`)

	b.mu.Lock()
	defer b.mu.Unlock()
	for _, url := range b.asked {
		if !strings.HasPrefix(url, site) && url != "about:blank" {
			t.Errorf("the page asks for %s", url)
		}
	}
	if len(b.asked) < 4 { // page, style, script, feed
		t.Errorf("only %q was asked for", b.asked)
	}
	for _, e := range b.errors {
		t.Errorf("the page complains: %s", e)
	}
}

// odd is what vip2's second action prints. The first one takes some time; the second one
// fails.
const odd = `<b id=odd>`

func actionsOf(vip int) string {
	if vip != 2 {
		return ""
	}
	return `[[vip.action]]
on = "acquire"
exec = ["/bin/sleep", "0.2"]
[[vip.action]]
on = "acquire"
exec = ["/bin/sh", "-c", "echo '` + odd + `'; exit 3"]`
}

// failedAction moves vip2. Its actions are shown beside the marks, and their output is
// shown but never taken as HTML.
func failedAction(t *testing.T, b *browser, c *cluster.Cluster) {
	t.Helper()
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	if _, err := c.Client(2).Do(ctx, control.Command{Kind: control.Move, VIP: "vip2", Node: "pbx3"}); err != nil {
		t.Fatal(err)
	}
	b.shows("the move and its actions", `(() => { const newest = document.querySelector("article[data-vip=vip2][data-takeover]"), bars = newest.querySelectorAll("[data-row=action] .bar");
		return bars.length === 2 && !bars[0].classList.contains("failed") && bars[1].classList.contains("failed") &&
			newest.querySelector(".output")?.textContent.includes("`+odd+`") && !document.querySelector("#odd") })()`)
	var long float64
	if err := b.eval(`(() => { const bar = document.querySelector("article[data-vip=vip2][data-takeover] [data-row=action] .bar");
		return bar.getBoundingClientRect().width / bar.parentElement.getBoundingClientRect().width })()`, &long); err != nil {
		t.Fatal(err)
	}
	if long < 0.5 { // 200 ms of a move that takes a few ms more
		t.Errorf("an action of 200 ms is drawn over %.2f of the move", long)
	}
}

// toldToAll looks at the page of pbx2, which neither gave nor took vip1. It shows that
// takeover once, told by the new holder, as the new holder's page shows it. A move of
// vip2 away from pbx2 is shown at its old holder.
func toldToAll(t *testing.T, holder *browser, c *cluster.Cluster) {
	t.Helper()
	own := newest(t, c, 2, "vip1")
	b := openBrowser(t, c.Phone(), fmt.Sprintf("http://%s:%d/", c.Node(1).Addr, port))
	b.shows("the takeover of vip1 by pbx3, told by it, whole", `(() => { const all = [...document.querySelectorAll("article[data-vip=vip1][data-takeover]")].filter((a) => a.innerText.includes("pbx1 → pbx3"));
		return all.length === 1 && all[0].innerText.includes("told by pbx3") && all[0].querySelector("[data-row='sip answered']") && all[0].querySelector("[data-row='router proven']") !== null &&
			all[0].querySelector(".felt").textContent.startsWith("A phone had nobody to talk to for at most ") })()`)
	told := newest(t, c, 1, "vip1")
	if told.Epoch != own.Epoch || !told.Told || told.Node != "pbx3" || told.Reason != own.Reason || told.Outcome != own.Outcome || told.Lease != own.Lease || len(told.Timeline) != len(own.Timeline) {
		t.Fatalf("pbx2 knows it as\n%+v, pbx3 as\n%+v", told, own)
	}
	for i, m := range told.Timeline {
		if of := own.Timeline[i]; m.Mark != of.Mark || math.Abs(ms(m.At-of.At)) > 0.002 {
			t.Errorf("mark %d is %s at %.3f ms, at pbx3 %s at %.3f ms", i, m.Mark, ms(m.At), of.Mark, ms(of.At))
		}
	}
	drawnToScale(t, b, told)
	b.shows("the move of vip2 away from it, with its actions", `(() => { const moved = document.querySelector("article[data-vip=vip2][data-takeover]"), bars = moved.querySelectorAll("[data-row=action] .bar");
		return moved.innerText.includes("pbx2 → pbx3") && moved.innerText.includes("told by pbx3") && bars.length === 2 && bars[1].classList.contains("failed") &&
			moved.querySelector(".output").textContent === "sipalive events at pbx3 says why" })()`)
	holder.shows("no takeover of its own as told", `[...document.querySelectorAll("article[data-takeover]")].every((a) => a.innerText.includes("→ pbx3") !== a.innerText.includes("told by"))`)
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	st, err := c.Client(1).Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	once := map[string]int{}
	for _, e := range st.Takeovers {
		once[fmt.Sprintf("%s %d", e.VIP, e.Epoch)]++
	}
	for takeover, n := range once {
		if n != 1 {
			t.Errorf("status has takeover %s %d times", takeover, n)
		}
	}
	if once[fmt.Sprintf("vip1 %d", own.Epoch)] != 1 {
		t.Errorf("status of pbx2 has takeovers %v, not that of vip1 under epoch %d", once, own.Epoch)
	}
	b.picture("told")
}

// anotherLease lets only pbx3 load a file with a longer lease. Its page must go on
// showing the takeover beside the lease under which it happened.
func anotherLease(t *testing.T, b *browser, c *cluster.Cluster) {
	t.Helper()
	text, err := os.ReadFile(c.Config)
	if err != nil {
		t.Fatal(err)
	}
	longer := strings.Replace(string(text), "[control]", "[timing]\nlease = \"2s\"\n[control]", 1)
	if err := os.WriteFile(c.Config, []byte(longer), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	if text, err := c.Client(2).Do(ctx, control.Command{Kind: control.Reload}); err != nil || text != "reloaded: settings changed" {
		t.Fatalf("reload: %q, %v", text, err)
	}
	b.shows("that pbx2 has another file", `document.querySelector("#unusual").innerText.includes("pbx2 runs another configuration")`)
	toScale(t, b, c)
}

// newest returns the newest takeover of a VIP as a node knows it.
func newest(t *testing.T, c *cluster.Cluster, node int, vip string) (e control.Event) {
	t.Helper()
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	events, err := c.Client(node).Events(ctx, 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, ev := range events {
		if ev.Kind == control.Takeover && ev.VIP == vip && ev.Epoch > e.Epoch {
			e = ev
		}
	}
	return e
}

// toScale measures the drawing on the new holder's page.
func toScale(t *testing.T, b *browser, c *cluster.Cluster) {
	t.Helper()
	drawnToScale(t, b, newest(t, c, 2, "vip1"))
}

// drawnToScale asserts that each mark of the takeover is drawn at its time, and the
// silence at its length beside the lease.
func drawnToScale(t *testing.T, b *browser, e control.Event) {
	t.Helper()
	if e.Outcome != "done" || len(e.Timeline) < 6 {
		t.Fatalf("the takeover is %+v", e)
	}
	heard, last := e.Timeline[0], e.Timeline[len(e.Timeline)-1] // the last mark is the SIP answer or the router's proof
	if heard.Mark != "last heard" {
		t.Fatalf("the timeline of a crash is %+v", e.Timeline)
	}
	for _, m := range e.Timeline[1:] {
		var at float64
		place := fmt.Sprintf(`(() => { const track = document.querySelector('article[data-takeover="%d"] [data-row="%s"]');
			const dot = track.querySelector(".dot"), t = track.getBoundingClientRect(), d = dot.getBoundingClientRect();
			return (d.left + d.width / 2 - t.left) / t.width })()`, e.ID, m.Mark)
		if err := b.eval(place, &at); err != nil {
			t.Fatal(err)
		}
		if want := ms(m.At) / ms(last.At); math.Abs(at-want) > 0.01 {
			t.Errorf("%s is drawn at %.3f of the track, want %.3f", m.Mark, at, want)
		}
	}
	var widths struct{ Lease, Phone float64 }
	measure := fmt.Sprintf(`(() => { const width = (row) => document.querySelector('article[data-takeover="%d"] [data-row="' + row + '"] .bar').getBoundingClientRect().width;
		return { Lease: width("whole lease"), Phone: width("whole silence") } })()`, e.ID)
	if err := b.eval(measure, &widths); err != nil {
		t.Fatal(err)
	}
	silence := ms(last.At - heard.At)
	if want, got := silence/1000, widths.Phone/widths.Lease; math.Abs(got-want) > 0.02*want { // the lease is 1 s
		t.Errorf("the silence is drawn %.3f leases long, want %.3f", got, want)
	}
	t.Logf("takeover of a silent host: silence of at most %.0f ms drawn beside a lease of 1000 ms", silence)
}

// ms returns a duration in milliseconds.
func ms(m control.Millis) float64 { return float64(m) / 1e6 }
