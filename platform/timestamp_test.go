package platform

import (
	"math"
	"net/netip"
	"testing"
	"time"
)

// A clock that runs fast by a known rate is measured through answers that take
// between 0.1 and 0.5 ms each way, over midnight, and the bounds hold.
func TestRateOfAClock(t *testing.T) {
	for _, ppm := range []float64{0, 100, -800, 2000} {
		s := stamps{}
		shows := func(here int64) int64 {
			there := float64(here)*(1+ppm/1e6)/1e6 + dayMillis - 1500
			return s.unwrap(int64(there) % dayMillis)
		}
		burst := func(at int64) (b bounds) {
			for i := range int64(stampsPerBurst) {
				sent := at + i*int64(stampPace)
				arrived := sent + 100_000 + i*37_000%400_000
				b.add(sent, arrived+100_000+i*53_000%400_000, shows(arrived))
			}
			return b
		}
		first, second := burst(0), burst(int64(3*time.Second))
		got := rate(first, second)
		if math.Abs(got.PPM-ppm) > got.Within {
			t.Errorf("%.0f ppm measured as %.0f within %.0f", ppm, got.PPM, got.Within)
		}
		if got.Within > 300 {
			t.Errorf("within %.0f ppm is no measure", got.Within)
		}
	}
}

// This machine's own clock beside itself, through the kernel.
func TestMeasureClock(t *testing.T) {
	lo := netip.MustParseAddr("127.0.0.1")
	got, err := MeasureClock(t.Context(), lo, lo, 500*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.0f ppm within %.0f", got.PPM, got.Within)
	if math.Abs(got.PPM) > got.Within+500 { // a time daemon may steer by 500 ppm; the boot clock with it
		t.Errorf("this machine's clock beside itself: %.0f ppm within %.0f", got.PPM, got.Within)
	}
}
