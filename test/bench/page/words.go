package page

import (
	"cmp"
	"slices"
)

// The tools and settings, in the order of the page.
var (
	Tools    = []string{"sipalive", "keepalived", "ucarp"}
	Settings = []string{"default", "100ms", "50ms", "10ms"}
)

// Fault is something that goes wrong, or is planned.
type Fault struct {
	Name, Title string
	Loss        float64 // percent, for one minute; 0: another kind of fault
}

// Faults are the faults in the order of the page.
var Faults = []Fault{
	{Name: "silent-host", Title: "silent host"},
	{Name: "cable-pulled", Title: "cable pulled"},
	{Name: "planned-stop", Title: "planned stop"},
	{Name: "planned-move", Title: "planned move"},
	{Name: "pbx-killed", Title: "PBX killed"},
	{Name: "pbx-frozen", Title: "PBX frozen"},
	{Name: "agent-frozen", Title: "agent frozen"},
	{Name: "agent-killed", Title: "agent killed"},
	{Name: "partition", Title: "nodes partitioned"},
	{Name: "loss-10", Title: "10 % loss", Loss: 10},
	{Name: "loss-20", Title: "20 % loss", Loss: 20},
	{Name: "loss-30", Title: "30 % loss", Loss: 30},
}

func faultIndex(name string) int {
	return slices.IndexFunc(Faults, func(f Fault) bool { return f.Name == name })
}

func compareCells(toolA, settingA, toolB, settingB string) int {
	return cmp.Or(slices.Index(Settings, settingA)-slices.Index(Settings, settingB), slices.Index(Tools, toolA)-slices.Index(Tools, toolB))
}
