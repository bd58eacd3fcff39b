package eventsocket

import (
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience limits waits for what should happen soon. No test expects it to pass.
const patience = 30 * time.Second
