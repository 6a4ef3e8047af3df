package cdc

import "time"

// Phase is where the relay stands in its circle.
type Phase uint8

// The phases.
const (
	PhaseWaiting Phase = iota
	PhaseInspecting
	PhaseAdvising
	PhaseAttaching
	PhaseOpening
	PhaseFacts
	PhaseStreaming
	PhaseDraining // reading has ended, what is complete is still published
	PhaseClosing
	PhaseFinished
)

// InputKind tells what an Input reports.
type InputKind uint8

// The inputs. Each but Tick, Message, StreamLost and Stop answers one action.
const (
	InputTick InputKind = iota
	InputInspected
	InputAdvised
	InputAttached
	InputOpened
	InputFacts
	InputTopic
	InputPublished
	InputClosed
	InputMessage
	InputStreamLost
	InputStop
)

// Input is one event from outside.
type Input struct {
	Kind           InputKind
	Err            error
	Source         SourceFacts   // Inspected, Facts
	Kafka          KafkaFacts    // Advised, Opened
	Topic          TopicFacts    // Topic
	StatusInterval time.Duration // Attached
	Message        *Message      // Message; only valid during the step
}

// Action is what the worker is to do next; it is answered by one Input.
type Action uint8

// The actions. Close may be given while another action is with the worker: that
// one's context is cancelled and its answer dropped.
const (
	ActionNone Action = iota
	ActionInspect
	ActionAdvise
	ActionAttach
	ActionOpen
	ActionFacts
	ActionTopic
	ActionPublish
	ActionClose
)

// Effects are what one step asks for, in this order: status, action, transition.
type Effects struct {
	Status         bool // send a status now
	Confirm        LSN  // its value; 0 acknowledges nothing
	ReplyRequested bool

	Action Action
	Topic  Topic  // ActionTopic
	Batch  *Batch // ActionPublish

	Transition *Transition
	Finished   bool     // the relay is done
	Problem    *Problem // with Finished: the halt; nil after an orderly stop
}

// Transition is a change of state, or a further failure in the same state.
type Transition struct {
	From, To State
	Cause    *Problem
	Failures int // how often this cause was seen in a row at this position
}
