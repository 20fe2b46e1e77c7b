// What goes wrong, and what an operator asks for meanwhile. Each fault has an end, and the next may come before it: at once, later, or when the domain is protected
// again.

import { pick, type Random } from '../support/random.js';
import type { Cluster } from './host/cluster.js';
import type { Host } from './host/host.js';
import { WITNESS } from './world/witness.js';

export type FaultKind =
  | 'crash'
  | 'power'
  | 'guest-crash'
  | 'switchover'
  | 'stop'
  | 'cut'
  | 'one-way-cut'
  | 'reset'
  | 'slow'
  | 'witness-down'
  | 'witness-slow'
  | 'witness-cut'
  | 'witness-flaky'
  | 'isolated';

const KINDS: readonly FaultKind[] = [
  ...(['crash', 'crash', 'power', 'power', 'guest-crash', 'stop', 'stop', 'stop'] as const),
  ...(['switchover', 'switchover', 'switchover'] as const),
  ...(['cut', 'cut', 'cut', 'one-way-cut', 'one-way-cut', 'reset', 'slow', 'isolated'] as const),
  ...(['witness-down', 'witness-slow', 'witness-cut', 'witness-flaky'] as const),
];

export const CRASHES: ReadonlySet<FaultKind> = new Set<FaultKind>(['crash', 'power', 'guest-crash']);
export const OF_WITNESS: ReadonlySet<FaultKind> = new Set<FaultKind>([
  'witness-down',
  'witness-slow',
  'witness-cut',
  'witness-flaky',
]);

export interface Fault {
  readonly kind: FaultKind;
  /** For how long. */
  readonly lastsMs: number;
  /** Whom it meets: who owns the domain then, who stands by, or anybody. */
  readonly whom: 'owner' | 'standby' | 'anybody';
  /** Before it: until the domain is protected, and then so long; or just so long. */
  readonly waits: 'protected' | 'time';
  readonly waitMs: number;
}

const FAULTS_MAX = 7;

export function drawFaults(random: Random): readonly Fault[] {
  const count = 1 + Math.floor(random() * FAULTS_MAX);
  return Array.from({ length: count }, (_, index) => {
    const waits = index === 0 ? pick(random, ['protected', 'time'] as const) : drawWaits(random);
    return {
      kind: pick(random, KINDS),
      lastsMs: drawLength(random),
      whom: pick(random, ['owner', 'owner', 'standby', 'anybody'] as const),
      waits,
      waitMs: waits === 'protected' ? 4000 * random() ** 2 : drawLength(random) / 2,
    };
  });
}

function drawWaits(random: Random): 'protected' | 'time' {
  return random() < 0.4 ? 'protected' : 'time';
}

/** From a moment to some seconds, as many of each size. */
function drawLength(random: Random): number {
  return 30 * 150 ** random();
}

/** Does it, and returns how it is undone; null: there is nobody to meet. */
export function inflict(cluster: Cluster, fault: Fault, host: Host, other: Host): (() => void) | null {
  const { network, witness, story } = cluster;
  const said = (what: string): void => story?.tell('fault', what);
  const cutting = (what: string, ways: readonly (readonly [string, string])[]): (() => void) => {
    said(`${what} is cut`);
    for (const [from, to] of ways) network.way(from, to).cuts++;
    return () => {
      for (const [from, to] of ways) network.way(from, to).cuts--;
      said(`${what} is whole again`);
    };
  };
  const both = (one: string, two: string) => [[one, two] as const, [two, one] as const];
  switch (fault.kind) {
    case 'crash':
    case 'power':
    case 'guest-crash':
    case 'switchover':
    case 'stop':
      return ofHost(cluster, fault.kind, host);
    case 'cut':
      return cutting(`${host.name} to ${other.name}`, both(host.name, other.name));
    case 'one-way-cut':
      return cutting(`the way from ${host.name} to ${other.name}`, [[host.name, other.name]]);
    case 'isolated': {
      const others = cluster.hosts.map(({ name }) => name).filter((name) => name !== host.name);
      return cutting(
        `${host.name} to everybody`,
        [...others, WITNESS].flatMap((name) => both(host.name, name)),
      );
    }
    case 'reset':
      said(`the connections of ${host.name} are reset`);
      host.agent?.reset(cluster.random);
      return () => undefined;
    case 'slow':
    case 'witness-slow':
      return slowing(cluster, fault, host.name, fault.kind === 'slow' ? other.name : WITNESS);
    case 'witness-down':
      said('the witness is down');
      witness.down++;
      return () => {
        witness.down--;
        said('the witness is up');
      };
    case 'witness-cut':
      return cutting(`${host.name} to the witness`, pickWays(cluster.random, host.name));
    case 'witness-flaky':
      said('the witness loses requests and replies');
      witness.flaky = 0.5;
      return () => {
        witness.flaky = 0;
        said('the witness loses nothing more');
      };
  }
}

/** There, back, or both. */
function pickWays(random: Random, host: string): readonly (readonly [string, string])[] {
  const there = [host, WITNESS] as const;
  const back = [WITNESS, host] as const;
  return pick(random, [[there], [back], [there, back]]);
}

function slowing(
  { network, story, params, random }: Cluster,
  fault: Fault,
  host: string,
  to: string,
): () => void {
  // Slower than that, and the other side would be silent for too long.
  const slowMs = (fault.kind === 'slow' ? 0.2 * params.heartbeatTimeoutMs : 2000) * random();
  story?.tell('fault', `${host} to ${to} is slow, by ${Math.round(slowMs)} ms`);
  const ways = [network.way(host, to), network.way(to, host)];
  for (const way of ways) way.slowMs += slowMs;
  return () => {
    for (const way of ways) way.slowMs -= slowMs;
    story?.tell('fault', `${host} to ${to} is as fast as before`);
  };
}

function ofHost(
  { story }: Cluster,
  kind: 'crash' | 'power' | 'guest-crash' | 'switchover' | 'stop',
  host: Host,
): (() => void) | null {
  const { agent, estate } = host;
  if (!host.isAlive || !agent) return null;
  switch (kind) {
    case 'stop':
      if (agent.process.isStopped) return null;
      story?.tell('fault', `the agent of ${host.name} is stopped`);
      agent.process.stop();
      return () => {
        if (agent.process.alive) story?.tell('fault', `the agent of ${host.name} goes on`);
        agent.process.resume();
      };
    case 'switchover':
      if (!agent.handOver()) return null;
      story?.tell('operator', `${host.name} shall hand the domain over`);
      return () => undefined;
    case 'guest-crash':
      if (!estate?.guest.running) return null;
      story?.tell('fault', `the domain on ${host.name} crashes`);
      estate.guest.over('crash');
      host.estate = null;
      estate.crashed();
      return () => undefined;
    case 'crash':
    case 'power': {
      // What hangs on its power is not attached to a domain that would outlive it.
      const power = kind === 'power' && !host.attached;
      story?.tell('fault', power ? `${host.name} loses its power` : `the agent of ${host.name} is killed`);
      host.crash(power);
      return () => host.start();
    }
  }
}
