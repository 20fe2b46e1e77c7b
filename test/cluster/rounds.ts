// A cluster as it lives for years, in minutes: a host is killed at a random moment, whether it runs the guest or stands by
// for it, and comes back; nobody types a command. One client has one connection to the guest through all of it.
//
//   each round    protected ─ random time ─▶ a host dies ─ random time ─▶ it comes back ─▶ protected again
//                 (now and then it dies once more while it is being synchronised)
//
//   node dist/test/cluster/rounds.js --rounds 30 [--seed N] [--hosts 3]

import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { asError } from '../../src/errors.js';
import { Counter } from '../hypervisor/qemu/lab-counter.js';
import { newSeed, pick, quantile, seeded, type Random } from '../support/random.js';
import { until } from '../support/until.js';
import { Cluster, findNeeded, PATIENCE_MS, qemuDomain, type Needed } from './cluster.js';
import type { ClusterHost, Death } from './host.js';
import { HOSTS } from './network.js';
import { ownersOf } from './outside.js';
import { silenceSince } from './situation.js';

/** From being protected to the kill, at most. */
const BEFORE_MS = 1000;
/** A host is away for at most so long. */
const AWAY_MS = 3000;
/** The second death comes within so much of the host's coming back. */
const AGAIN_WITHIN_MS = 1500;
const AGAIN_CHANCE = 0.25;
const DEATHS: readonly Death[] = ['agent', 'processes', 'power'];
/** The client has to get on by so much in each round. */
const REPLIES = 20;

export interface RoundsOptions {
  readonly rounds: number;
  readonly hosts?: number;
  readonly seed?: number;
  readonly say: (text: string) => void;
}

export interface Round {
  readonly victim: string;
  readonly wasOwner: boolean;
  readonly how: Death;
  readonly deaths: number;
  /** The client's longest silence in it. */
  readonly silenceMs: number;
  /** From the first death. */
  readonly protectedAfterMs: number;
  /** From when the host that came back listened. */
  readonly protectedAfterReturnMs: number;
}

export interface RoundsReport {
  readonly seed: number;
  readonly rounds: readonly Round[];
  readonly replies: number;
  /** Of hosts that run it, one after another. */
  readonly owners: number;
  /** Null: none. */
  readonly fault: string | null;
}

/** Ends at the first fault, which is told with what all hosts said last. */
export async function rounds({ etcd, files }: Needed, options: RoundsOptions): Promise<RoundsReport> {
  const { rounds: count, hosts: hostCount = 2, seed = newSeed(), say } = options;
  if (!files) throw new Error('rounds need a guest');
  const hosts = HOSTS.slice(0, hostCount);
  const cluster = await Cluster.open({ hosts, domains: [qemuDomain(files, { hosts })], etcd });
  const done: Round[] = [];
  let client: Counter | null = null;
  let fault: string | null;
  let owners = 1;
  try {
    const random = seeded(seed);
    client = await begin(cluster);
    for (let k = 0; k < count; k++) {
      const round = await oneRound(cluster, client, random);
      done.push(round);
      say(`round ${k + 1}: ${told(round)}`);
    }
    owners = ownersOf(await cluster.history()).length;
    fault = await cluster.contradiction();
  } catch (thrown) {
    fault = `${asError(thrown).message}; ${client?.wrong ?? ''}`;
    say(cluster.transcript(Date.now() - PATIENCE_MS - 10_000));
  } finally {
    await cluster.close();
  }
  const report = { seed, rounds: done, replies: client?.replies.length ?? 0, owners, fault };
  say(summary(report));
  return report;
}

/** Resolves when it is protected, and the client is served. */
async function begin(cluster: Cluster): Promise<Counter> {
  await cluster.start();
  await cluster.untilProtected();
  await until('the guest ticks', () => cluster.ticks.length > 2, PATIENCE_MS);
  const client = new Counter(cluster.lab);
  await client.reach(REPLIES, PATIENCE_MS);
  return client;
}

async function oneRound(cluster: Cluster, client: Counter, random: Random): Promise<Round> {
  await cluster.untilProtected();
  const [owner, standby] = [cluster.owner(), cluster.standby()];
  if (!owner || !standby) throw new Error('nobody is protected');
  const wasOwner = random() < 0.5;
  const victim = wasOwner ? owner : standby;
  const how = pick(random, DEATHS);
  await sleep(random() * BEFORE_MS);
  const before = client.replies.length;
  const killedAt = performance.now();
  await victim.die(how);
  const deaths = 1 + (await comeBack(cluster, victim, random));
  const returnedAt = performance.now();
  await cluster.untilProtected();
  const protectedAt = performance.now();
  await client.reach(before + REPLIES, PATIENCE_MS);
  return {
    ...{ victim: victim.name, wasOwner, how, deaths },
    silenceMs: silenceSince(client, before),
    protectedAfterMs: protectedAt - killedAt,
    protectedAfterReturnMs: protectedAt - returnedAt,
  };
}

/** Resolves to how often it died once more. */
async function comeBack(cluster: Cluster, victim: ClusterHost, random: Random): Promise<number> {
  await sleep(random() * AWAY_MS);
  await victim.comeBack();
  if (random() >= AGAIN_CHANCE) return 0;
  await sleep(random() * AGAIN_WITHIN_MS);
  // Whoever runs it alone must not die: that would be two failures.
  await until('somebody runs it', () => cluster.owner() !== null, PATIENCE_MS);
  if (cluster.owner() === victim) return 0;
  await victim.die(pick(random, DEATHS));
  await sleep(random() * AWAY_MS);
  await victim.comeBack();
  return 1;
}

function told({ victim, wasOwner, how, deaths, ...ms }: Round): string {
  return (
    `${victim} (${wasOwner ? 'owner' : 'standby'}) dies${deaths > 1 ? ' twice' : ''} (${how}): ` +
    `silence ${ms.silenceMs.toFixed(0)} ms, protected again after ${ms.protectedAfterMs.toFixed(0)} ms, ` +
    `${ms.protectedAfterReturnMs.toFixed(0)} ms after its return`
  );
}

function figures(values: readonly number[]): string {
  return `median ${quantile(values, 0.5).toFixed(0)} ms, most ${Math.max(...values).toFixed(0)} ms`;
}

export function summary({ seed, rounds: all, replies, owners, fault }: RoundsReport): string {
  const silences = (wasOwner: boolean) =>
    figures(all.filter((round) => round.wasOwner === wasOwner).map(({ silenceMs }) => silenceMs));
  return [
    `seed ${seed}: ${all.length} rounds, ${replies} replies in one connection, ${owners} owners in turn`,
    `longest silence of the client: owner dies ${silences(true)}; standby dies ${silences(false)}`,
    `protected again: ${figures(all.map(({ protectedAfterMs }) => protectedAfterMs))} after the death, ` +
      `${figures(all.map(({ protectedAfterReturnMs }) => protectedAfterReturnMs))} after the return`,
    fault === null ? 'no fault' : `FAULT: ${fault}`,
  ].join('\n');
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: '30' },
      hosts: { type: 'string', default: '2' },
      seed: { type: 'string' },
    },
  });
  const needed = await findNeeded(true);
  if (!needed) process.exit(2);
  const report = await rounds(needed, {
    rounds: Number(values.rounds),
    hosts: Number(values.hosts),
    ...(values.seed !== undefined && { seed: Number(values.seed) }),
    say: (text) => process.stdout.write(`${text}\n`),
  });
  process.exit(report.fault === null ? 0 : 1);
}
