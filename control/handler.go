package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"time"
)

// The routes have a version because an operator may run a newer binary's commands against
// an older running agent.
const (
	pathStatus  = "/v1/status"
	pathPlan    = "/v1/plan"
	pathEvents  = "/v1/events"
	pathCommand = "/v1/command"
	pathFlush   = "/v1/flush"
	pathDrain   = "/v1/drain"
	pathRotate  = "/v1/key/rotate"
	pathLock    = "/v1/lock"
	pathUnlock  = "/v1/unlock"
)

// maxWithout is more than any sensible number of nodes in one plan.
const maxWithout = 64

// failure is the body of every answer that is not 200.
type failure struct {
	Error string `json:"error"`
}

// outcome is the body of a command's answer.
type outcome struct {
	Text string `json:"text"`
}

// refusal is an error with its HTTP status code.
type refusal struct {
	code int
	err  error
}

func (r refusal) Error() string { return r.err.Error() }

func refuse(code int, format string, args ...any) error {
	return refusal{code, fmt.Errorf(format, args...)}
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle(pathStatus, s.answer(http.MethodGet, s.status))
	mux.Handle(pathPlan, s.answer(http.MethodGet, s.plan))
	mux.Handle(pathCommand, s.answer(http.MethodPost, s.command))
	mux.Handle(pathDrain, s.answer(http.MethodPost, s.drainWaiting))
	mux.Handle(pathRotate, s.answer(http.MethodPost, s.rotate))
	mux.Handle(pathLock, s.answer(http.MethodPost, s.lock))
	mux.Handle(pathUnlock, s.answer(http.MethodPost, s.unlock))
	mux.Handle(pathFlush, s.answer(http.MethodPost, s.flush))
	mux.Handle(pathEvents, s.answer(http.MethodGet, s.events))
	mux.Handle("/", s.answer("", func(http.ResponseWriter, *http.Request) (any, error) {
		return nil, refuse(http.StatusNotFound, "no such page (newer command than agent? compare sipalive version)")
	}))
	return mux
}

// answer runs fn for requests with that method and writes the document it returns. nil
// means that fn has written the answer itself.
func (s *Server) answer(method string, fn func(http.ResponseWriter, *http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		doc, err := any(nil), error(nil)
		if method != "" && r.Method != method {
			w.Header().Set("Allow", method)
			err = refuse(http.StatusMethodNotAllowed, "method %s: not possible here (use %s)", oneLine(r.Method), method)
		} else {
			doc, err = fn(w, r)
		}
		code := http.StatusOK
		if err != nil {
			code, doc = s.failed(err)
		}
		if doc != nil {
			s.reply(w, code, doc)
		}
	})
}

// failed turns an error into an answer. The code is 409 if the agent says no, 504 if it
// did not answer in time.
func (s *Server) failed(err error) (int, any) {
	var no refusal
	code := http.StatusConflict
	switch {
	case errors.As(err, &no):
		s.refused.Add(1)
		code = no.code
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		code = http.StatusGatewayTimeout
		err = errors.New("the agent's loop did not answer in time")
	}
	return code, failure{oneLine(err.Error())}
}

func (s *Server) reply(w http.ResponseWriter, code int, doc any) {
	body, err := encode(doc)
	if err != nil {
		http.Error(w, "", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.write))
	w.WriteHeader(code)
	w.Write(body)
}

func (s *Server) status(_ http.ResponseWriter, r *http.Request) (any, error) {
	st, err := s.statusNow(r.Context())
	if err != nil {
		return nil, err
	}
	st.Takeovers = s.journal.takeovers(maxTakeovers)
	return st, nil
}

// statusNow returns the agent's status with the server's own counters added.
func (s *Server) statusNow(ctx context.Context) (Status, error) {
	ctx, cancel := context.WithTimeout(ctx, s.ask)
	defer cancel()
	st, err := s.agent.Status(ctx)
	if err != nil {
		return st, err
	}
	if st.Counters != nil {
		st.Counters = maps.Clone(st.Counters)
		maps.Copy(st.Counters, s.Counters())
	}
	return st.normal(), nil
}

func (s *Server) plan(_ http.ResponseWriter, r *http.Request) (any, error) {
	without := r.URL.Query()["without"]
	if len(without) > maxWithout {
		return nil, refuse(http.StatusBadRequest, "plan without %d nodes: too many (at most %d)", len(without), maxWithout)
	}
	for _, name := range without {
		if err := checkName(name); err != nil {
			return nil, refuse(http.StatusBadRequest, "plan: %w", err)
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), s.ask)
	defer cancel()
	p, err := s.agent.Plan(ctx, without)
	if err != nil {
		return nil, err
	}
	return p.normal(), nil
}

func (s *Server) command(w http.ResponseWriter, r *http.Request) (any, error) {
	cmd, err := readCommand(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), s.do)
	defer cancel()
	text, err := s.agent.Do(ctx, cmd)
	if err != nil {
		return nil, err
	}
	return outcome{text}, nil
}

func (s *Server) flush(_ http.ResponseWriter, r *http.Request) (any, error) {
	results, err := s.agent.Flush(r.Context()) // the actions' own timeouts end it
	if results == nil {
		results = []FlushResult{}
	}
	if err != nil {
		return nil, err
	}
	return results, nil
}

func readCommand(body io.Reader) (cmd Command, err error) {
	raw, err := io.ReadAll(body)
	if err != nil {
		if _, large := errors.AsType[*http.MaxBytesError](err); large {
			return cmd, refuse(http.StatusRequestEntityTooLarge, "command: longer than %d bytes", maxBody)
		}
		return cmd, refuse(http.StatusBadRequest, "command: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&cmd); err != nil {
		return cmd, refuse(http.StatusBadRequest, "command: not one JSON object of kind, vip and node: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return cmd, refuse(http.StatusBadRequest, "command: more than one JSON object")
	}
	if err := cmd.check(); err != nil {
		return cmd, refuse(http.StatusBadRequest, "%w", err)
	}
	return cmd, nil
}
