package eventsocket

import (
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience limits waits for what should happen soon. It is no expectation of how long
// they take.
const patience = 30 * time.Second
