/*
 * The lease of one VIP: voter, candidate and holder of docs/design.md §4.3 to
 * §4.5. spin searches it (model_test.go) for a state with two effective holders
 * and for an acquisition whose epoch is not above the last one's.
 *
 * Three nodes, each a voter. As it is, 0 and 1 are candidates from a cold
 * start. With -DMOVE node 0 holds epoch 1 by all three votes and may move the
 * VIP to node 1, and of candidates there is only node 2. -DFORGETS=node:
 * that one may lose its runtime directory, once. -DE: the highest epoch.
 * -DNO_RESTART: but for that, no agent restarts.
 *
 * Each step of a node is one d_step: what it changes is stored when the step
 * ends, before anything it sends is received. Nothing has to happen: a node
 * that is dead, frozen or cut off takes no step.
 *
 * Where it abstracts
 * - Time is ticks, a lease is T = 2 of them, and a tick is one for all: no
 *   drift, hence no margin; leases do not differ in length.
 * - When to ask is free: no claim, rank, backoff, prevote, confidence, list.
 *   A node may stand under any epoch above those that it asked for before.
 * - An ask under any epoch that a node ever asked for may arrive at any time,
 *   any number of times. Its lease counts from when it arrives: sent earlier,
 *   it would give its sender less. An answer may be late by any time; of those
 *   by one voter to one node the newest is under way, and an answer or a vote
 *   too old to prolong the lease is left out. A node's newest release, the
 *   newest ready and each voter's word of the release stay under way for ever.
 *   Refusals are read from the voter.
 * - Freshness (§4.2) is this: no answer counts for another acquisition or
 *   another life of the agent than asked for it. Of what a node sent before it
 *   lost its directory only the release still arrives.
 * - A crash and the restart after it are one step, at the time of the restart.
 *   The kernel's fence ends an address with its lease. An agent that starts
 *   unbinds what it may not hold on to.
 * - With the directory the epoch on the disk is lost, so that from then on
 *   epochs need not rise.
 * - Not here: several VIPs, survivors, drains, a second move, a holder that
 *   lets go because it sees another under a higher epoch.
 */

#ifndef E
#define E 2
#endif
#ifndef PLANT
#define PLANT 0
#endif
#ifndef REACH
#define REACH 0
#endif
#define T	2
#define NOBODY	3

/* -DPLANT=name: a bug, which has to be found. */
#define LEASE_FROM_RECEIPT		1
#define LEASE_FROM_ONE_ASK		2
#define VOTES_COUNTED_TWICE		3
#define EPOCH_NOT_COMPARED		4
#define NOT_BARRED			5
#define HELD_NOT_LOOKED_AT		6
#define ANSWERED_BEFORE_STORED		7
#define OWN_VOTE_NOT_STORED		8
#define RESTORED_NOT_HONOURED		9
#define ASKED_FORGOTTEN			10
#define NO_QUIET_TIME			11
#define QUIET_FORGOTTEN			12
#define INSTANCE_KEPT			13
#define RELEASE_WITHOUT_INSTANCE	14
#define RELEASE_OF_ANY_EPOCH		15
#define RELEASE_BEFORE_UNBIND		16
#define LATE_ANSWER_COUNTS		17
#define VOTES_OUTLIVE			18
#define SUCCESSOR_FROM_RECEIPT		19
#define VOTED_WITHOUT_VOTE		20
#define ANY_READY_WILL_DO		21

/* -DREACH=name: asserts that what has to be possible never happens. */
#define TAKEOVER	1
#define HELD_ON		2	/* over a restart of the holder's agent */
#define RAISED		3	/* an epoch in place */
#define FORGOT		4	/* an acquisition after a directory was lost */
#define MOVED		5
#define FOLLOWED	6	/* a third node took over from the successor of a move */
#define REACHED(what, when)	assert(REACH != what || !(when))

typedef Voter {
	unsigned holder : 2;	/* of the grant, or NOBODY */
	unsigned inst : 1;
	unsigned epoch : 2;
	unsigned left : 2;	/* of the grant; 0: lapsed */
	unsigned barred : 2;
	unsigned quiet : 2	/* what is left of the quiet time */
};

#define IDLE	  0
#define ASKING	  1
#define HOLDING	  2
#define UNBINDING 3	/* the address answers until it is gone or its lease ends */

typedef Node {
	unsigned phase : 2;
	unsigned inst : 1;
	unsigned epoch : 2;	/* asked for or held */
	unsigned first : 2;	/* of this acquisition: the holder may have raised it */
	unsigned until : 2;	/* what is left of the lease */
	unsigned asked : 2;	/* the highest epoch asked for, held or given up */
	unsigned gave : 2;	/* the epoch of its release, 0: none */
	unsigned gaveInst : 1
};

/* Between candidate c and voter v, what is left of a lease by: */
typedef Link {
	unsigned answer : 2;	/* the answer under way, 0: none */
	unsigned vote : 2	/* the newest that c counted, 0: none */
};

#define NONE	0
#define OLD	1
#define NOW	2

/* The move from node 0 to node 1. */
typedef Move {
	unsigned ready : 2;	/* what is left of the lease that counts from 1's newest ready */
	unsigned said : 2;	/* that ready, under way to 0: NOW, or OLD if 1 would not hold on it any more */
	unsigned named : 2	/* what 0's release names; NONE: no successor */
};

Voter voter[3];
Node node[3];
Link link[9];
Move move;
bool word[3];		/* that the release made v's vote the successor's; 0's own travels in the release */
bool lost;		/* a runtime directory was lost */
unsigned top : 2;	/* the last acquisition's epoch */
unsigned end : 2;	/* scratch */

#define LINK(c, v)	link[3 * (c) + (v)]
#define MAX(a, b)	((a) > (b) -> (a) : (b))
#define MIN(a, b)	((a) < (b) -> (a) : (b))
#define ABOVE(a, b)	((a) > (b) -> (a) : 0)
#define ASKS(c)		(node[c].phase == ASKING || node[c].phase == HOLDING)
#define EFFECTIVE(c)	(node[c].phase >= HOLDING && node[c].until > 0)

/* §4.3: the voter */

#define OWN(v, c, n)	(voter[v].holder == c && voter[v].inst == n)
#define HELD(v, c, n)	(PLANT != HELD_NOT_LOOKED_AT && voter[v].left > 0 && !OWN(v, c, n))
#define STALE(v, c, n, e) (PLANT != EPOCH_NOT_COMPARED && \
	((e <= voter[v].barred && PLANT != NOT_BARRED) || e < voter[v].epoch || (e == voter[v].epoch && !OWN(v, c, n))))
#define GRANTS(v, c, n, e) (voter[v].quiet == 0 && !HELD(v, c, n) && !STALE(v, c, n, e))
#define RELEASES(v, c)	(node[c].gave > 0 && voter[v].holder == c && \
	(voter[v].inst == node[c].gaveInst || PLANT == RELEASE_WITHOUT_INSTANCE) && \
	(voter[v].epoch <= node[c].gave || PLANT == RELEASE_OF_ANY_EPOCH))

#define SET_GRANT(v, c, n, e, t) \
	voter[v].holder = c; voter[v].inst = n; voter[v].epoch = e; voter[v].left = t
#define CLEAR_GRANT(v)	SET_GRANT(v, NOBODY, 0, 0, 0)

/* The successor takes a release for its newest ready only. */
#define TAKEN	(move.named == NOW || PLANT == ANY_READY_WILL_DO)

inline applyRelease(v, c) {
	voter[v].barred = MAX(voter[v].barred, node[c].gave);
	if
	:: c == 0 && move.named != NONE ->
		SET_GRANT(v, 1, node[1].inst, node[c].gave + 1, T);
		word[v] = TAKEN
	:: else -> CLEAR_GRANT(v)
	fi
}

inline release(c, v) { d_step { RELEASES(v, c) -> applyRelease(v, c) } }

/* An ask under e arrives. */
inline hear(c, v, e) {
	d_step {
		e <= node[c].asked && GRANTS(v, c, node[c].inst, e) ->
		SET_GRANT(v, c, node[c].inst, e, T);
		if
		:: ASKS(c) && e >= node[c].first && T > node[c].until -> LINK(c, v).answer = T
		:: else
		fi
	}
}

#if PLANT == ANSWERED_BEFORE_STORED
#define CRASHING(c, v, e)	:: answerAndCrash(c, v, e)
inline answerAndCrash(c, v, e) {
	d_step {
		ASKS(c) && e >= node[c].first && e <= node[c].epoch && GRANTS(v, c, node[c].inst, e) ->
		LINK(c, v).answer = T;
		restartVoter(v);
		restartNode(v)
	}
}
#else
#define CRASHING(c, v, e)
#endif

/* §4.4: the candidate and the holder */

inline voidVotes(c) {
#if PLANT != VOTES_OUTLIVE
	LINK(c, 0).vote = 0; LINK(c, 1).vote = 0; LINK(c, 2).vote = 0;
#endif
#if PLANT != LATE_ANSWER_COUNTS
	LINK(c, 0).answer = 0; LINK(c, 1).answer = 0; LINK(c, 2).answer = 0
#endif
}

inline voidReady() {
	move.ready = 0;
	move.said = MIN(move.said, OLD);
	move.named = MIN(move.named, OLD);
#if PLANT != ANY_READY_WILL_DO
	word[0] = 0; word[1] = 0; word[2] = 0
#endif
}

inline becomeIdle(c) {
	node[c].phase = IDLE; node[c].epoch = 0; node[c].first = 0; node[c].until = 0
}

inline hold(c) {
	node[c].phase = HOLDING;
	node[c].until = end;
	end = 0;
	assert(EFFECTIVE(0) + EFFECTIVE(1) + EFFECTIVE(2) == 1);
	assert(lost || node[c].epoch > top);
	REACHED(TAKEOVER, top > 0);
	REACHED(FORGOT, lost);
	REACHED(FOLLOWED, c == 2 && node[1].asked > 0);
	top = MAX(top, node[c].epoch)
}

inline leaveOut(c, v) {
	LINK(c, v).vote = ABOVE(LINK(c, v).vote, node[c].until);
	LINK(c, v).answer = ABOVE(LINK(c, v).answer, node[c].until)
}

/* The second newest of three: a majority has granted what was asked since. */
inline tally(c) {
	end = MAX(MIN(LINK(c, 0).vote, LINK(c, 1).vote), MIN(MAX(LINK(c, 0).vote, LINK(c, 1).vote), LINK(c, 2).vote));
#if PLANT == LEASE_FROM_ONE_ASK
	end = (end > 0 -> MAX(MAX(LINK(c, 0).vote, LINK(c, 1).vote), LINK(c, 2).vote) : 0);
#elif PLANT == VOTES_COUNTED_TWICE
	end = MAX(MAX(LINK(c, 0).vote, LINK(c, 1).vote), LINK(c, 2).vote);
#endif
	if
	:: node[c].phase == ASKING && end > 0 -> hold(c)
	:: node[c].phase == HOLDING && end > node[c].until -> node[c].until = end
	:: else
	fi;
	leaveOut(c, 0); leaveOut(c, 1); leaveOut(c, 2);
	end = 0
}

inline stand(c, e) {
	d_step {
		node[c].phase <= ASKING && e > node[c].asked ->
		voidVotes(c);
		node[c].phase = ASKING;
		node[c].epoch = e; node[c].first = e; node[c].asked = e
	}
}

inline askSelf(c) {
	d_step {
		ASKS(c) && GRANTS(c, c, node[c].inst, node[c].epoch) ->
		SET_GRANT(c, c, node[c].inst, node[c].epoch, T);
		LINK(c, c).vote = T;
		tally(c)
	}
}

inline count(c, v) {
	d_step {
		LINK(c, v).answer > 0 && ASKS(c) ->
		LINK(c, v).vote = (PLANT == LEASE_FROM_RECEIPT -> T : MAX(LINK(c, v).vote, LINK(c, v).answer));
		LINK(c, v).answer = 0;
		tally(c)
	}
}

/* Refused as stale: a holder raises its epoch in place, a candidate stands anew. */
inline raise(c, v) {
	d_step {
		node[c].phase == HOLDING && voter[v].quiet == 0 && !HELD(v, c, node[c].inst) &&
		STALE(v, c, node[c].inst, node[c].epoch) && MAX(voter[v].barred, voter[v].epoch) < E ->
		node[c].epoch = MAX(voter[v].barred, voter[v].epoch) + 1;
		node[c].asked = node[c].epoch;
		REACHED(RAISED, true)
	}
}

inline sendRelease(c) {
	node[c].gave = node[c].epoch;
	node[c].gaveInst = node[c].inst;
	if
	:: RELEASES(c, c) -> applyRelease(c, c)
	:: else -> word[c] = (c == 0 -> PLANT == VOTED_WITHOUT_VOTE && move.named == NOW : word[c])
	fi
}

inline giveUp(c) {
	d_step {
		node[c].phase == ASKING ->
		voidVotes(c);
		sendRelease(c);
		becomeIdle(c)
	}
}

inline beginUnbinding(c) {
	voidVotes(c);
	node[c].phase = UNBINDING;
	move.said = (c == 0 -> NONE : move.said);
	if
	:: PLANT == RELEASE_BEFORE_UNBIND -> sendRelease(c)
	:: else
	fi
}

inline letGo(c) { d_step { node[c].phase == HOLDING -> beginUnbinding(c) } }

inline unbind(c) {
	d_step {
		node[c].phase == UNBINDING ->
		sendRelease(c);
		becomeIdle(c)
	}
}

/* The move: a prepare arrives, now or late, and 1 says ready; 0 lets go; 1
 * hears of two votes that were made its own. */
inline sayReady() {
	d_step {
		node[1].phase == IDLE && node[1].asked == 0 ->
		voidReady();
		move.ready = T;
		move.said = (node[0].phase == HOLDING -> NOW : NONE)
	}
}

inline pass() {
	d_step {
		node[0].phase == HOLDING && move.said != NONE && node[0].epoch < E ->
		move.named = move.said;
		beginUnbinding(0)
	}
}

inline succeed() {
	d_step {
		node[1].phase == IDLE && node[1].asked == 0 && move.ready > 0 && word[0] + word[1] + word[2] >= 2 ->
		node[1].asked = node[0].gave + 1;
		node[1].epoch = node[1].asked; node[1].first = node[1].asked;
		end = (PLANT == SUCCESSOR_FROM_RECEIPT -> T : move.ready);
		voidReady();
		hold(1);
		REACHED(MOVED, true)
	}
}

/* §4.5: restart */

inline restartVoter(v) {
	if
	:: PLANT == OWN_VOTE_NOT_STORED && voter[v].holder == v -> CLEAR_GRANT(v)
	:: else
	fi;
	voter[v].left = (voter[v].holder == NOBODY || PLANT == RESTORED_NOT_HONOURED -> 0 : T);
	voter[v].quiet = (PLANT == QUIET_FORGOTTEN -> 0 : voter[v].quiet)
}

/* What was asked, said ready or about to be released by the earlier life is void. */
inline endLife(c) {
	voidVotes(c);
	if
	:: c == 1 -> voidReady()
	:: c == 0 && node[c].phase >= HOLDING -> move.said = NONE; move.named = NONE
	:: else
	fi
}

inline restartNode(c) {
	endLife(c);
	if
	:: node[c].phase == HOLDING -> node[c].first = node[c].epoch; REACHED(HELD_ON, true)
	:: else ->
		becomeIdle(c);
		node[c].asked = (PLANT == ASKED_FORGOTTEN -> 0 : node[c].asked)
	fi
}

inline restart(v) { d_step { true -> restartVoter(v); restartNode(v) } }

inline forget(v) {
	d_step {
		!lost ->
		lost = true;
		CLEAR_GRANT(v);
		voter[v].barred = 0;
		voter[v].quiet = (PLANT == NO_QUIET_TIME -> 0 : T);
		endLife(v);
		becomeIdle(v);
		node[v].asked = 0;
		node[v].inst = (PLANT == INSTANCE_KEPT -> 0 : 1)
	}
}

#define DOWN(x)	x = (x > 0 -> x - 1 : 0)

inline ageLink(c, v) {
	DOWN(LINK(c, v).vote);
#if PLANT != LEASE_FROM_RECEIPT
	DOWN(LINK(c, v).answer)
#endif
}

inline age(c) {
	DOWN(voter[c].left);
	DOWN(voter[c].quiet);
	ageLink(c, 0); ageLink(c, 1); ageLink(c, 2);
	DOWN(node[c].until);
	if
	:: node[c].phase == HOLDING && node[c].until == 0 -> beginUnbinding(c)
	:: else
	fi
}

inline tick() {
	d_step {
		true ->
		age(0); age(1); age(2);
		if
		:: move.ready == 1 -> voidReady()
		:: move.ready > 1 -> move.ready--
		:: else
		fi
	}
}

#define HEAR(c, v, e)	:: hear(c, v, e) CRASHING(c, v, e)
#if E == 2
#define STAND(c)	:: stand(c, 1) :: stand(c, 2)
#define ASK(c, v)	HEAR(c, v, 1) HEAR(c, v, 2)
#else
#define STAND(c)	:: stand(c, 1) :: stand(c, 2) :: stand(c, 3)
#define ASK(c, v)	HEAR(c, v, 1) HEAR(c, v, 2) HEAR(c, v, 3)
#endif
#define VOTE(c, v)	ASK(c, v) :: count(c, v) :: release(c, v) :: raise(c, v)
#define HOLD(c)		:: askSelf(c) :: raise(c, c) :: letGo(c) :: unbind(c)
#define CANDIDATE(c)	STAND(c) HOLD(c) :: giveUp(c)

active proctype cluster() {
	d_step {
		CLEAR_GRANT(0); CLEAR_GRANT(1); CLEAR_GRANT(2);
#ifdef MOVE
		SET_GRANT(0, 0, 0, 1, T); SET_GRANT(1, 0, 0, 1, T); SET_GRANT(2, 0, 0, 1, T);
		node[0].asked = 1; node[0].epoch = 1; node[0].first = 1;
		end = T;
		hold(0)
#endif
	}
	do
#ifdef MOVE
	HOLD(0) HOLD(1) CANDIDATE(2)
	VOTE(2, 0) VOTE(2, 1)
	:: sayReady() :: pass() :: succeed()
#else
	CANDIDATE(0) CANDIDATE(1)
#endif
	VOTE(0, 1) VOTE(0, 2) VOTE(1, 0) VOTE(1, 2)
#ifndef NO_RESTART
	:: restart(0) :: restart(1) :: restart(2)
#endif
#ifdef FORGETS
	:: forget(FORGETS)
#endif
	:: tick()
	od
}
