package keyring

import "crypto/ecdh"

// Message is what nodes tell each other about their keys, sealed as all they say.
type Message interface{ message() }

// Ask asks a node for its view, and may order something.
type Ask struct {
	Question  uint64 // drawn at random by who asks; the answer repeats it
	Challenge uint64 // the last one heard of the node that is asked; an order counts only with it
	Try       bool   // also: could its key file be written?
	Order     *Order
}

// Tell answers an Ask.
type Tell struct {
	Question  uint64
	Challenge uint64 // never 0; another one after each order
	Public    Public // for a key that the next order brings; another one with each challenge
	View      View
	Err       string // why an order was not carried out, or could not be
}

func (Ask) message()  {}
func (Tell) message() {}

// Keeper keeps one node's ring. What makes an order fresh is its challenge, which
// counts once: a recorded order does nothing, and one whose answer was lost is
// answered with what is so now.
type Keeper struct {
	ring       Ring
	challenges map[string]challenge // by who asks
	random     func() uint64
}

// NewKeeper keeps ring. random gives challenges nobody can guess.
func NewKeeper(ring Ring, random func() uint64) *Keeper {
	return &Keeper{ring: ring, challenges: map[string]challenge{}, random: random}
}

// Ring is the ring as it is now.
func (k *Keeper) Ring() Ring { return k.ring }

// Replace takes another ring: the file's, at a reload.
func (k *Keeper) Replace(r Ring) { k.ring = r }

// Hear answers a question of node from. put makes a ring last (the file comes first,
// then what seals and opens) and must be done when it returns; try tells whether
// that would work. The caller has made sure who asks.
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
	t.View = t.View[:min(len(t.View), MaxKeys)] // what a packet carries; such a ring is not rotated
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

// challenge is what makes one order fresh, and opens the key that it brings.
type challenge struct {
	word    uint64
	private *ecdh.PrivateKey
	public  Public
}

// challenge is what from's next order has to bring.
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
