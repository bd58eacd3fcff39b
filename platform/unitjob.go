package platform

import (
	"context"
	"fmt"

	"github.com/godbus/dbus/v5"
)

// RestartJob is the type of the job with which systemd stops a unit that it
// starts again right after: `systemctl restart`, `try-restart` and what a
// package upgrade calls all come down to it.
const RestartJob = "restart"

const systemdBusName = "org.freedesktop.systemd1"

// UnitJob asks systemd over the system bus ($DBUS_SYSTEM_BUS_ADDRESS, or the
// usual place) what it is doing with the unit that a process belongs to: the
// type of the unit's job (org.freedesktop.systemd1(5), JobType), "" where it has
// none. The type stays "restart" until the old process is gone; a shutdown is a
// "stop". ctx bounds all of it.
func UnitJob(ctx context.Context, pid int) (string, error) {
	bus, err := dbus.ConnectSystemBus(dbus.WithContext(ctx)) // closed when ctx ends, so nothing of it outlasts that
	if err != nil {
		return "", fmt.Errorf("reach systemd over the system bus: %w", inTime(ctx, err))
	}
	defer func() { _ = bus.Close() }()
	var unit dbus.ObjectPath
	err = bus.Object(systemdBusName, "/org/freedesktop/systemd1").
		CallWithContext(ctx, systemdBusName+".Manager.GetUnitByPID", 0, uint32(pid)).Store(&unit)
	if err != nil {
		return "", fmt.Errorf("ask systemd for the unit of process %d: %w", pid, inTime(ctx, err))
	}
	var job struct {
		ID   uint32
		Path dbus.ObjectPath
	}
	if err := busProperty(ctx, bus, unit, "Unit", "Job", &job); err != nil {
		return "", err
	}
	if job.ID == 0 {
		return "", nil
	}
	var kind string
	err = busProperty(ctx, bus, job.Path, "Job", "JobType", &kind)
	return kind, err
}

func busProperty(ctx context.Context, bus *dbus.Conn, of dbus.ObjectPath, kind, name string, value any) error {
	var v dbus.Variant
	err := bus.Object(systemdBusName, of).
		CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0, systemdBusName+"."+kind, name).Store(&v)
	if err == nil {
		err = v.Store(value)
	}
	if err != nil {
		return fmt.Errorf("ask systemd for %s of %s: %w", name, of, inTime(ctx, err))
	}
	return nil
}

// inTime names the reason where a call failed because time was up: the library
// then says that the connection was closed.
func inTime(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}
