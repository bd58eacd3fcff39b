package platform

import (
	"slices"
	"testing"
	"time"
)

const alarmPatience = 10 * time.Second

func openAlarms(t *testing.T) *Alarms {
	t.Helper()
	a, err := OpenAlarms()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

// bell makes an alarm that reports when it rang.
func bell(a *Alarms) (*Alarm, chan int64) {
	rang := make(chan int64, 16)
	return a.New(func() { rang <- BootNow() }), rang
}

func awaitBell(t *testing.T, what string, rang chan int64) int64 {
	t.Helper()
	select {
	case at := <-rang:
		return at
	case <-time.After(alarmPatience):
		t.Fatalf("%s: does not ring", what)
		return 0
	}
}

func in(d time.Duration) int64 { return BootNow() + int64(d) }

// ahead calls set with an instant that is still in the future when set returns. If the
// machine stood still meanwhile, it calls set again; each call must use new alarms.
func ahead(t *testing.T, set func(at int64)) (at int64) {
	t.Helper()
	for d := 20 * time.Millisecond; d < alarmPatience; d *= 2 {
		at := in(d)
		if set(at); BootNow() < at {
			return at
		}
	}
	t.Fatal("the machine stands still too often to tell anything")
	return 0
}

func TestAlarmsRingInOrderAndNeverEarly(t *testing.T) {
	a := openAlarms(t)
	var rang chan int
	ahead(t, func(at int64) {
		this := make(chan int, 4) // not shared: an earlier attempt's alarms may still ring
		rang = this
		for i, w := range []time.Duration{20 * time.Millisecond, 0, 10 * time.Millisecond, -time.Second} {
			at := at + int64(w)
			a.New(func() { // all alarms share a goroutine
				if now := BootNow(); now < at {
					t.Errorf("alarm %d rings %v early", i, time.Duration(at-now))
				}
				this <- i
			}).Set(at)
		}
	})
	var order []int
	for range 4 {
		select {
		case i := <-rang:
			order = append(order, i)
		case <-time.After(alarmPatience):
			t.Fatalf("of four only %v have rung", order)
		}
	}
	if !slices.Equal(order, []int{3, 1, 2, 0}) {
		t.Fatalf("rang in the order %v", order)
	}
}

func TestAlarmIsSetAnew(t *testing.T) {
	a := openAlarms(t)
	sooner, rang := bell(a)
	sooner.Set(in(time.Hour))
	between, _ := bell(a)
	between.Set(in(time.Hour / 2))
	sooner.Set(in(5 * time.Millisecond))
	awaitBell(t, "set to be sooner", rang)

	var later *Alarm
	const more = int64(40 * time.Millisecond)
	at := more + ahead(t, func(at int64) {
		later, rang = bell(a)
		later.Set(at)
		later.Set(at + more)
	})
	if rangAt := awaitBell(t, "set to be later", rang); rangAt < at {
		t.Errorf("rang %v early", time.Duration(at-rangAt))
	}
	later.Set(in(-time.Second))
	awaitBell(t, "set to the past", rang)
	later.Set(0)
	awaitBell(t, "set to the beginning of time", rang)
	if len(rang) > 0 {
		t.Errorf("rang %d times more", len(rang))
	}
}

func TestAlarmStopped(t *testing.T) {
	a := openAlarms(t)
	var stopped *Alarm
	var rang chan int64
	at := ahead(t, func(at int64) {
		stopped, rang = bell(a)
		stopped.Set(at)
		stopped.Stop()
		stopped.Stop()
	})
	other, after := bell(a)
	other.Set(at + int64(20*time.Millisecond))
	awaitBell(t, "the other", after)
	if len(rang) > 0 {
		t.Error("a stopped alarm rang")
	}
	stopped.Set(in(time.Millisecond))
	awaitBell(t, "set after a stop", rang)
}

func TestAlarmsClosed(t *testing.T) {
	var rang chan int64
	at := ahead(t, func(at int64) {
		a := openAlarms(t)
		var l *Alarm
		l, rang = bell(a)
		l.Set(at)
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		l.Set(in(time.Millisecond)) // does nothing, and does no harm
	})
	other, after := bell(openAlarms(t))
	other.Set(at + int64(30*time.Millisecond))
	awaitBell(t, "one of another timer", after)
	if len(rang) > 0 {
		t.Error("rang after the end")
	}
}

// BenchmarkAlarm measures how late an alarm rings on an idle machine, beside a Go timer.
func BenchmarkAlarm(b *testing.B) {
	a, err := OpenAlarms()
	if err != nil {
		b.Fatal(err)
	}
	defer a.Close()
	late := func(b *testing.B, wait func(at int64) int64) {
		var sum int64
		for range b.N {
			at := in(3*time.Millisecond + 500*time.Microsecond)
			sum += wait(at) - at
		}
		b.ReportMetric(float64(sum)/float64(b.N)/1e3, "µs-late")
		b.ReportMetric(0, "ns/op")
	}
	b.Run("alarm", func(b *testing.B) {
		l, rang := bell(a)
		late(b, func(at int64) int64 { l.Set(at); return <-rang })
	})
	b.Run("go", func(b *testing.B) {
		late(b, func(at int64) int64 { time.Sleep(time.Duration(at - BootNow())); return BootNow() })
	})
}
