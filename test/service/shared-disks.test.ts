import { expect } from 'chai';
import fc from 'fast-check';
import { stallMsOf, standstillMsOf } from '../../src/channel/link/heartbeat.js';
import { TwoHosts, type Speeds } from './two-hosts.js';

describe('service: a domain whose disks are shared, and both hosts', () => {
  const speeds: Speeds = {
    ...{ latencyMs: 3, stopMs: 400, heartbeatIntervalMs: 50, heartbeatTimeoutMs: 400 },
    ...{ reconnectWindowMs: 100, registerMs: 5, shared: true },
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
        fc.record({
          latencyMs: fc.integer({ min: 1, max: 20 }),
          stopMs: fc.integer({ min: 0, max: 450 }),
          registerMs: fc.integer({ min: 0, max: 1500 }),
        }),
        (faultsInTurn, changes) => {
          const hosts = protectedHosts(changes);
          for (const [delayMs, strike] of faultsInTurn) {
            hosts.advance(delayMs);
            strike(hosts);
          }
          hosts.advance(2500);
          expect(hosts.both, 'both ran').to.equal(0);
          hosts.partitioned = false;
          hosts.advance(4500);
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
