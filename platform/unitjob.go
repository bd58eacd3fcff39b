package platform

import (
	"context"
	"fmt"

	"github.com/godbus/dbus/v5"
)

// RestartJob is the type of the job in which systemd stops a unit and starts it again
// right after. `systemctl restart`, `try-restart` and the calls of a package upgrade all
// end up as this type.
const RestartJob = "restart"

const systemdBusName = "org.freedesktop.systemd1"

// UnitJob asks systemd what it is doing with the unit of a process. It returns the type
// of the unit's job (org.freedesktop.systemd1(5), JobType), or "" if there is none. The
// type stays "restart" until the old process is gone; a shutdown is a "stop". UnitJob
// uses the system bus ($DBUS_SYSTEM_BUS_ADDRESS, or the usual place). ctx bounds all of
// it.
func UnitJob(ctx context.Context, pid int) (string, error) {
	bus, err := dbus.ConnectSystemBus(dbus.WithContext(ctx)) // the connection closes when ctx ends, so nothing of it outlasts ctx
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

// inTime returns ctx's error if the time is up. The library then says only that the
// connection was closed.
func inTime(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}
