package keyring

import "crypto/ecdh"

// Message is what nodes tell each other about their keys. It is sealed like every packet.
type Message interface{ message() }

// Ask asks a node for its view, and may give it an order.
type Ask struct {
	Question  uint64 // drawn at random by the asking node; the answer repeats it
	Challenge uint64 // the last one heard from the node that is asked; an order counts only with it
	Try       bool   // also ask: could the node write its key file?
	Order     *Order
}

// Tell answers an Ask.
type Tell struct {
	Question  uint64
	Challenge uint64 // never 0; a new one after each order
	Public    Public // wraps the key in the next order; a new one with each challenge
	View      View
	Err       string // why an order was not carried out, or why the key file could not be written
}

func (Ask) message()  {}
func (Tell) message() {}

// Keeper keeps one node's ring. An order is fresh only with the current challenge, and
// each challenge counts once. So a recorded order does nothing. If the answer to an order
// is lost, the repeated order is answered with the view as it is now.
type Keeper struct {
	ring       Ring
	challenges map[string]challenge // by asking node
	random     func() uint64
}

// NewKeeper makes a Keeper of ring. random must give numbers that nobody can guess.
func NewKeeper(ring Ring, random func() uint64) *Keeper {
	return &Keeper{ring: ring, challenges: map[string]challenge{}, random: random}
}

// Ring returns the current ring.
func (k *Keeper) Ring() Ring { return k.ring }

// Replace sets another ring: the file's, at a reload.
func (k *Keeper) Replace(r Ring) { k.ring = r }

// Hear answers a question from node from. put makes a ring permanent: it writes the file
// first, then changes what seals and opens; all of it must be done when put returns. try
// reports whether put would work. The caller has checked who sent the question.
func (k *Keeper) Hear(from string, a Ask, put func(Ring) error, try func() error) Tell {
	var err error
	switch {
	case a.Order != nil && a.Challenge == k.challenge(from).word:
		private := k.challenge(from).private
		delete(k.challenges, from)
		err = k.obey(*a.Order, private, put)
	case a.Order == nil && a.Try:
		err = try()
	}
	c := k.challenge(from)
	t := Tell{Question: a.Question, Challenge: c.word, Public: c.public, View: k.ring.View()}
	t.View = t.View[:min(len(t.View), MaxKeys)] // a packet carries no more; a ring that long is not rotated
	if err != nil {
		t.Err = err.Error()
	}
	return t
}

func (k *Keeper) obey(o Order, private *ecdh.PrivateKey, put func(Ring) error) error {
	next, err := k.ring.Apply(o, func(w Wrapped) ([]byte, error) { return unwrap(private, w) })
	if err != nil || next.Equal(k.ring) {
		return err
	}
	if err := put(next); err != nil {
		return err
	}
	k.ring = next
	return nil
}

// challenge makes one order fresh, and opens the key in that order.
type challenge struct {
	word    uint64
	private *ecdh.PrivateKey
	public  Public
}

// challenge returns the challenge that from's next order must repeat.
func (k *Keeper) challenge(from string) challenge {
	c, known := k.challenges[from]
	if !known {
		for c.word == 0 {
			c.word = k.random()
		}
		c.private, c.public = newPrivate(k.random)
		k.challenges[from] = c
	}
	return c
}
