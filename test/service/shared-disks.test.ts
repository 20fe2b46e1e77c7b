import { expect } from 'chai';
import fc from 'fast-check';
import { stepPrimary } from '../../src/primary/life.js';
import {
  initialPrimaryState,
  type PrimaryEffect,
  type PrimaryEvent,
  type PrimaryState,
} from '../../src/primary/life-state.js';
import { mayRun } from '../../src/primary/life-standstill.js';
import { stallMsOf, standstillMsOf } from '../../src/channel/link/silence.js';
import { TwoHosts, type Speeds } from './two-hosts.js';
import { VirtualMachine, words } from './virtual-machine.js';

const SILENCE_MS = 1000;

type Machine = VirtualMachine<PrimaryState, PrimaryEvent, PrimaryEffect>;

function machine(): Machine {
  return new VirtualMachine<PrimaryState, PrimaryEvent, PrimaryEffect>(
    stepPrimary,
    initialPrimaryState(
      {
        ...{ intervalMs: 50, windowEpochs: 1, acknowledgeTimeoutMs: 5000, whenUnprotected: 'hold' },
        ...{ startWithSecondary: false, stallMs: 500, standstill: { silenceMs: SILENCE_MS } },
      },
      1000,
    ),
    (event, atMs) => ({ ...event, atMs }),
    (timer) => ({ kind: 'timer', timer: timer === 'interval' ? 'interval' : 'acknowledge' }),
  );
}

function capture(m: Machine, streamUuid: string, epoch: number): void {
  for (const kind of ['suspending', 'captured', 'ready'] as const) m.give({ kind, streamUuid, epoch });
}

/** Started, and stream A has its first checkpoint acknowledged. */
function replicating(): Machine {
  const m = machine();
  m.give({ kind: 'start', orphaned: false, running: false });
  m.give({ kind: 'linked', streamUuid: 'A' });
  capture(m, 'A', 0);
  m.give({ kind: 'acknowledged', streamUuid: 'A', epoch: 0 });
  return m;
}

/** Time passes, and the process lives. */
function live(m: Machine, ms: number, heard: string | null = null): string[] {
  const seen: string[] = [];
  for (let t = 0; t < ms; t += 100) {
    seen.push(...words(m.advance(100)));
    seen.push(...words(m.give({ kind: 'beat' })));
    if (heard !== null) seen.push(...words(m.give({ kind: 'heard', streamUuid: heard })));
  }
  return seen;
}

describe('service: a domain whose disks are shared', () => {
  it('runs before there is a secondary, and its hypervisor is told before the first checkpoint', () => {
    const m = machine();
    expect(words(m.give({ kind: 'start', orphaned: false, running: false }))).to.deep.equal(['start-domain']);
    expect(words(m.give({ kind: 'linked', streamUuid: 'A' }))).to.deep.equal([
      ...['expose', 'restart-gate', 'save', 'transition linked'],
    ]);
    // Nobody has a checkpoint yet.
    expect(words(m.give({ kind: 'lost', streamUuid: 'A', code: 'X' }))).to.deep.equal([
      ...['expose', 'abandon', 'transition X'],
    ]);
    expect(mayRun(m.state)).to.equal(true);
  });

  it('link lost: it stands still first of all, and goes on when the next secondary is heard', () => {
    const m = replicating();
    expect(words(m.give({ kind: 'lost', streamUuid: 'A', code: 'X' }))[0]).to.equal('halt-domain');
    expect(live(m, 5000)).to.deep.equal([]);
    expect(words(m.give({ kind: 'linked', streamUuid: 'B' }))).to.deep.equal(['transition linked']);
    expect(words(m.give({ kind: 'heard', streamUuid: 'B' }))).to.deep.equal([
      ...['restart-gate', 'save', 'unhalt-domain'],
    ]);
    expect(live(m, 3000, 'B')).to.not.include('halt-domain');
  });

  it('silence, before the link is given up: it stands still, and goes on at the next word', () => {
    const m = replicating();
    expect(live(m, SILENCE_MS)).to.not.include('halt-domain');
    expect(live(m, 200)).to.include('halt-domain');
    expect(words(m.give({ kind: 'heard', streamUuid: 'A' }))).to.deep.equal(['unhalt-domain']);
  });

  it('the process was stopped: it stands still first of all, whatever it hears, until a checkpoint taken since is acknowledged', () => {
    const m = replicating();
    live(m, 300, 'A');
    capture(m, 'A', 1);
    m.jump(600);
    expect(words(m.give({ kind: 'acknowledged', streamUuid: 'A', epoch: 1 }))[0]).to.equal('halt-domain');
    expect(words(m.give({ kind: 'heard', streamUuid: 'A' }))).to.deep.equal([]);
    live(m, 100, 'A');
    capture(m, 'A', 2);
    expect(words(m.give({ kind: 'acknowledged', streamUuid: 'A', epoch: 2 }))).to.include('unhalt-domain');
  });

  it('stopped between a link and its first word: that link is given up', () => {
    const m = replicating();
    m.give({ kind: 'lost', streamUuid: 'A', code: 'X' });
    m.give({ kind: 'linked', streamUuid: 'B' });
    m.jump(600);
    expect(words(m.give({ kind: 'heard', streamUuid: 'B' }))).to.include('drop-link INTERNAL');
    expect(m.state.still).to.equal(true);
  });

  it('the secondary takes its leave: it runs on', () => {
    const m = replicating();
    const effects = words(m.give({ kind: 'bye', streamUuid: 'A', reason: 'shutdown' }));
    expect(effects).to.not.include('halt-domain');
    expect(effects).to.include('expose');
    expect(m.state.exposing).to.equal(false);
  });

  it('its service stops: it stands still until the secondary has answered', () => {
    const m = replicating();
    expect(words(m.give({ kind: 'stop' }))[0]).to.equal('halt-domain');
    expect(words(m.give({ kind: 'goodbye', streamUuid: 'A', confirmed: true }))).to.deep.equal([
      'let-go free',
    ]);
    const unanswered = replicating();
    unanswered.give({ kind: 'stop' });
    expect(words(unanswered.give({ kind: 'goodbye', streamUuid: 'A', confirmed: false }))).to.include(
      'let-go held',
    );
  });

  it('left behind exposed by an agent before us: it is not started before a secondary is heard', () => {
    const m = machine();
    expect(words(m.give({ kind: 'start', orphaned: true, running: false }))).to.deep.equal(['expose']);
    expect(words(m.give({ kind: 'linked', streamUuid: 'A' }))).to.deep.equal(['transition linked']);
    expect(words(m.give({ kind: 'heard', streamUuid: 'A' }))).to.deep.equal([
      ...['start-domain', 'restart-gate', 'save'],
    ]);
  });

  it('fenced while it stands still: it is let go stopped', () => {
    const m = replicating();
    m.give({ kind: 'lost', streamUuid: 'A', code: 'X' });
    expect(words(m.give({ kind: 'fenced' }))).to.include('let-go stopped');
  });

  describe('and both hosts', () => {
    const speeds: Speeds = {
      ...{ latencyMs: 3, stopMs: 400, heartbeatIntervalMs: 50, heartbeatTimeoutMs: 400 },
      ...{ reconnectWindowMs: 100, shared: true },
    };
    const stallMs = stallMsOf(speeds.heartbeatTimeoutMs);

    function protectedHosts(changes: Partial<Speeds> = {}): TwoHosts {
      const hosts = new TwoHosts({ ...speeds, ...changes });
      hosts.advance(300);
      expect(hosts.p.stream?.acknowledged).to.be.greaterThan(1);
      return hosts;
    }

    const faults: Record<string, (hosts: TwoHosts) => void> = {
      'a partition': (hosts) => (hosts.partitioned = true),
      'a partition in which the secondary’s end is reset': (hosts) => {
        hosts.partitioned = true;
        hosts.cut('secondary');
      },
      'the death of the primary’s agent': (hosts) => hosts.killPrimary(300),
    };
    for (const [name, fault] of Object.entries(faults)) {
      it(`${name}: one runs, then the other; without the standstill both would`, () => {
        const hosts = protectedHosts();
        fault(hosts);
        hosts.advance(standstillMsOf(speeds) + 2000);
        expect([hosts.takeovers, hosts.both]).to.deep.equal([1, 0]);
        const others = protectedHosts({ shared: false });
        fault(others);
        others.advance(4000);
        expect(others.takeovers).to.equal(1);
        expect(others.both).to.be.greaterThan(50);
      });
    }

    it('a cut, or a reset of the secondary’s end, of a moment: nobody takes over, and the guest goes on', () => {
      for (const sides of ['both', 'secondary'] as const) {
        const hosts = protectedHosts();
        hosts.cut(sides);
        hosts.advance(3000);
        expect(hosts.takeovers).to.equal(0);
        expect(hosts.primaryRuns).to.equal(true);
      }
    });

    it('the latest that a primary can stop its guest is just in time', () => {
      const hosts = protectedHosts({ stopMs: 490 });
      const { clock, primary } = hosts;
      // It hears the last word late …
      primary.stoppedUntil = clock.now + stallMs - 1;
      hosts.cut('secondary');
      hosts.advance(speeds.latencyMs);
      hosts.partitioned = true;
      hosts.advance(stallMs + speeds.heartbeatIntervalMs + speeds.heartbeatTimeoutMs - 20);
      // … and decides late.
      primary.stoppedUntil = clock.now + stallMs - 1;
      hosts.advance(standstillMsOf(speeds));
      expect([hosts.takeovers, hosts.both]).to.deep.equal([1, 0]);
    });

    it('whatever happens: never both', () => {
      const fault = fc.oneof(
        fc
          .constantFrom('both' as const, 'secondary' as const)
          .map((sides) => (hosts: TwoHosts) => hosts.cut(sides)),
        fc.boolean().map((on) => (hosts: TwoHosts) => void (hosts.partitioned = on)),
        // Any longer, and only the fence helps.
        fc.integer({ min: 1, max: stallMs }).map((ms) => (hosts: TwoHosts) => {
          hosts.primary.stoppedUntil = hosts.clock.now + ms;
        }),
        fc.integer({ min: 1, max: 3000 }).map((ms) => (hosts: TwoHosts) => {
          hosts.secondary.stoppedUntil = hosts.clock.now + ms;
        }),
        fc.constant((hosts: TwoHosts) => hosts.killPrimary(400)),
      );
      let takeovers = 0;
      let survivals = 0;
      fc.assert(
        fc.property(
          fc.array(fc.tuple(fc.integer({ min: 0, max: 700 }), fault), { minLength: 1, maxLength: 8 }),
          fc.record({ latencyMs: fc.integer({ min: 1, max: 20 }), stopMs: fc.integer({ min: 0, max: 450 }) }),
          (faultsInTurn, changes) => {
            const hosts = protectedHosts(changes);
            for (const [delayMs, strike] of faultsInTurn) {
              hosts.advance(delayMs);
              strike(hosts);
            }
            hosts.advance(2500);
            expect(hosts.both, 'both ran').to.equal(0);
            hosts.partitioned = false;
            hosts.advance(2500);
            expect(hosts.both, 'both ran').to.equal(0);
            takeovers += hosts.takeovers;
            if (hosts.primaryRuns) survivals++;
            else expect(hosts.secondaryRuns, 'somebody runs it').to.equal(true);
          },
        ),
        { numRuns: 200 },
      );
      expect(Math.min(takeovers, survivals)).to.be.greaterThan(10);
    });
  });
});
