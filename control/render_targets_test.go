package control

import (
	"slices"
	"testing"
	"time"
)

// TestSlowAnswersAreSaid: a line appears once one answer in ten takes more than half the
// timeout.
func TestSlowAnswersAreSaid(t *testing.T) {
	ms := Millis(time.Millisecond)
	for p90, want := range map[Millis][]string{
		200 * ms: nil,
		201 * ms: {"pbx1 main answers slowly: one answer in ten takes 201.0 ms or more, after 400.0 ms it counts as silent"},
	} {
		got := unusualTargets("pbx1", []TargetStatus{{Name: "main", Median: ms, P90: p90, Max: 300 * ms, Timeout: 400 * ms}})
		if !slices.Equal(got, want) {
			t.Errorf("p90 %v: %q, want %q", p90.text(), got, want)
		}
	}
}

// TestCertificatesAreSaid: a line appears two weeks before a certificate ends, and
// whenever a certificate is not valid.
func TestCertificatesAreSaid(t *testing.T) {
	soon, later := time.Now().Add(certificateSoon-time.Hour), time.Now().Add(certificateSoon+time.Hour)
	for name, c := range map[string]struct {
		target TargetStatus
		want   []string
	}{
		"none":     {TargetStatus{Name: "main"}, nil},
		"for long": {TargetStatus{Name: "main", CertificateEnds: &Since{later}}, nil},
		"ends soon": {TargetStatus{Name: "main", CertificateEnds: &Since{soon}},
			[]string{"pbx1 main: its certificate ends " + soon.UTC().Format(tableTime)}},
		"not believed": {TargetStatus{Name: "main", CertificateEnds: &Since{later}, CertificateProblem: `certificate of "pbx1": x509: certificate signed by unknown authority`},
			[]string{`pbx1 main: certificate of "pbx1": x509: certificate signed by unknown authority`}},
		"not believed, for it has ended": {TargetStatus{Name: "main", CertificateEnds: &Since{time.Now().Add(-time.Hour)}, CertificateProblem: `certificate of "pbx1": x509: certificate has expired`},
			[]string{`pbx1 main: certificate of "pbx1": x509: certificate has expired`}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := unusualTargets("pbx1", []TargetStatus{c.target}); !slices.Equal(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}
