// A Debian server as it lives for years, in minutes: its owner is killed at a random moment, in a random way, and comes back,
// while its clients go on in the connections that they have.
//
//   each round   protected ─ random time ─▶ the owner dies ─▶ the standby's image is copied ─▶ it takes over ─▶ checks
//                                                             └ the owner comes back ─▶ protected again
//
// What is copied is the image as it was committed: the witness is made to stand still before the owner dies, so the standby
// has committed what it acknowledged, wants to take over, and must not. Nobody writes to the image then, and its record
// says that all of it is in the file. (Later the guest writes to it; a copy of a disk that is being written is of no moment.)
//
//   node dist/test/server/rounds.js --kills 20 [--seed N]

import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { asError } from '../../src/errors.js';
import { Cluster, findNeeded } from '../cluster/cluster.js';
import type { ClusterHost } from '../cluster/host.js';
import { ADDRESS_OF } from '../cluster/network.js';
import { ownersOf } from '../cluster/outside.js';
import type { Lab } from '../hypervisor/qemu/lab.js';
import { Cleanup } from '../support/cleanup.js';
import { newSeed, pick, quantile, seeded, type Random } from '../support/random.js';
import { until } from '../support/until.js';
import { Acknowledged, PgBench, RemoteShell } from './clients.js';
import { checkServer } from './checks.js';
import { DISK_BYTES, ensureServer, type ServerFiles } from './image.js';
import { checked, copied, imageOf, imagesIn, pointOf, SERVER, serverDomain, type Image } from './server.js';

const ADDRESS = ADDRESS_OF.guest;
export const GUEST_ADDRESS = `${ADDRESS}/24`;
/** Until a server that boots answers, or one is synchronised, on a machine that has other things to do. */
export const PATIENCE_MS = 240_000;
/** From being protected to the kill, at most. */
const BEFORE_MS = 5000;
/** A host is away for at most so long. */
const AWAY_MS = 5000;
/** Each client has to get on by so much in each round. */
const ANSWERS = 10;
/** qemu: its QEMU, and the agent lives. processes: both. agent: by SIGKILL, which its QEMU does not outlive. power: the host. */
const DEATHS = ['qemu', 'agent', 'processes', 'power'] as const;
/** What may be sent of the disk when it is synchronised again. */
const RESENT_MAX = 0.2;

export interface ServerOptions {
  readonly kills: number;
  readonly seed?: number;
  readonly say: (text: string) => void;
}

export interface Round {
  readonly victim: string;
  readonly how: (typeof DEATHS)[number];
  /** The longest silence in which a client waited for an answer; in it the image was copied. */
  readonly silenceMs: number;
  readonly copyMs: number;
  /** So long the server took to look through what it has. */
  readonly checkMs: number;
  /** From when the dead one was there again; if only its QEMU died, from when the server was looked through. */
  readonly protectedAfterMs: number;
  /** Octets of the disk that were copied then. */
  readonly resentBytes: number;
  /** All that its host sent meanwhile: also the memory, and what the server wrote and said. */
  readonly wireBytes: number;
}

export interface ServerReport {
  readonly seed: number;
  readonly rounds: readonly Round[];
  /** Commits of SQL, and of Redis, that were acknowledged. */
  readonly acknowledged: readonly [number, number];
  /** Null: none. */
  readonly fault: string | null;
}

/** Ends at the first fault, which is told with what all hosts said last. */
export async function serverRounds(
  etcd: string,
  files: ServerFiles,
  { kills, seed = newSeed(), say }: ServerOptions,
): Promise<ServerReport> {
  const cleanup = new Cleanup();
  const rounds: Round[] = [];
  let fault: string | null;
  let run: ServerRun | null = null;
  say(`seed ${seed}`);
  try {
    run = await ServerRun.open(cleanup, etcd, files);
    await run.begin(say);
    const random = seeded(seed);
    for (let k = 0; k < kills; k++) {
      const round = await run.round(random);
      rounds.push(round);
      say(`kill ${k + 1}: ${told(round)}`);
    }
    fault = await run.ended();
  } catch (thrown) {
    fault = asError(thrown).message;
    say(run?.transcript() ?? '');
  } finally {
    await cleanup.run();
  }
  const acknowledged = run?.acknowledged ?? ([0, 0] as const);
  const report = { seed, rounds, acknowledged, fault };
  say(summary(report));
  return report;
}

class ServerRun {
  readonly #cluster: Cluster;
  readonly #files: ServerFiles;
  readonly #images: Awaited<ReturnType<typeof imagesIn>>;
  readonly #directory: string;
  readonly #sql: Acknowledged;
  readonly #redis: Acknowledged;
  #load: PgBench | null = null;
  #shell: RemoteShell | null = null;
  readonly #beganMs = Date.now();

  static async open(cleanup: Cleanup, etcd: string, files: ServerFiles): Promise<ServerRun> {
    const directory = await cleanup.directory();
    const images = await imagesIn(directory, files);
    const cluster = await Cluster.open({ etcd, domains: [serverDomain(files, images)] });
    cleanup.add(() => cluster.close());
    return new ServerRun(cluster, files, images, directory);
  }

  private constructor(
    cluster: Cluster,
    files: ServerFiles,
    images: Awaited<ReturnType<typeof imagesIn>>,
    directory: string,
  ) {
    this.#cluster = cluster;
    this.#files = files;
    this.#images = images;
    this.#directory = directory;
    this.#sql = new Acknowledged(cluster.lab, 'sql', ADDRESS);
    this.#redis = new Acknowledged(cluster.lab, 'redis', ADDRESS);
  }

  get acknowledged(): readonly [number, number] {
    return [this.#sql.count, this.#redis.count];
  }

  /** Resolves when it is protected, and all its clients are served. It boots before it has a standby, which is quicker. */
  async begin(say: (text: string) => void): Promise<void> {
    const began = performance.now();
    const since = () => `${((performance.now() - began) / 1000).toFixed(1)} s`;
    const [alpha, beta] = [this.#cluster.host('alpha'), this.#cluster.host('beta')];
    await alpha.start();
    await this.#serve();
    const shell = new RemoteShell(this.#cluster.lab, this.#files, ADDRESS);
    this.#shell = shell;
    await shell.run('true', PATIENCE_MS);
    const load = new PgBench(this.#cluster.lab, this.#files, ADDRESS);
    this.#load = load;
    await until('pgbench', () => load.rate > 0, PATIENCE_MS);
    say(`all are served after ${since()}`);
    await beta.start();
    await this.#cluster.untilProtected(SERVER, PATIENCE_MS);
    await this.#serve();
    say(`protected after ${since()}, ${percent(await resent(alpha, 0))} of the disk sent`);
  }

  async round(random: Random): Promise<Round> {
    const cluster = this.#cluster;
    const how = pick(random, DEATHS);
    const [waitMs, awayMs] = [random() * BEFORE_MS, random() * AWAY_MS];
    // On a busy machine a link may be lost meanwhile.
    do {
      await cluster.untilProtected(SERVER, PATIENCE_MS);
      await sleep(waitMs);
    } while (!cluster.isProtected(SERVER));
    const [owner, standby] = [cluster.owner(SERVER), cluster.standby(SERVER)];
    if (!owner || !standby) throw new Error('nobody is protected');
    const [from, earlier] = [this.acknowledged, standby.synchronisations.length];
    const { copy, copyMs } = await this.#kill(owner, standby, how);
    const fileSystem = checked(copy);
    fileSystem.catch(() => undefined); // told below
    await this.#serve();
    const silenceMs = Math.max(this.#sql.silenceSince(from[0]), this.#redis.silenceSince(from[1]));
    const sentBefore = await sentBytes(cluster.lab, standby.name);
    const checkMs = await this.#checkServer();
    if (how !== 'qemu') {
      await sleep(awayMs);
      await owner.comeBack();
    }
    const since = performance.now();
    const elapsed = () => performance.now() - since;
    await cluster.untilProtected(SERVER, PATIENCE_MS);
    const protectedAfterMs = elapsed();
    const wireBytes = (await sentBytes(cluster.lab, standby.name)) - sentBefore;
    await fileSystem;
    await this.#serve();
    const resentBytes = await resent(standby, earlier);
    if (resentBytes >= RESENT_MAX * DISK_BYTES)
      throw new Error(`${percent(resentBytes)} of the disk were sent`);
    return { victim: owner.name, how, silenceMs, copyMs, checkMs, protectedAfterMs, resentBytes, wireBytes };
  }

  /** Null: of two, only one at a time was heard. */
  async ended(): Promise<string | null> {
    this.#load?.end();
    const owners = ownersOf(await this.#cluster.history(SERVER));
    return owners.length === 0 ? 'the register knows no owner' : this.#cluster.contradiction(SERVER);
  }

  /** What all hosts said last, and what the server did on its console. */
  transcript(): string {
    const { hosts } = this.#cluster;
    const consoles = hosts.map(({ name, console }) => `${name}:\n${console.slice(-30).join('\n')}`);
    return [this.#cluster.transcript(Math.max(this.#beganMs, Date.now() - PATIENCE_MS)), ...consoles].join(
      '\n',
    );
  }

  async #kill(
    owner: ClusterHost,
    standby: ClusterHost,
    how: Round['how'],
  ): Promise<{ copy: Image; copyMs: number }> {
    const { witness } = this.#cluster;
    await witness.stop();
    try {
      if (how === 'qemu') await owner.loseQemu();
      else await owner.die(how);
      const image = imageOf(this.#images, standby.name);
      await until('the link is lost', () => standby.partIn(SERVER).link !== 'replicating', PATIENCE_MS);
      const epoch = () => standby.commitIn(SERVER)?.epoch;
      await until('the record of what is committed', () => pointOf(image)?.epoch === epoch(), PATIENCE_MS);
      const [last, began] = [epoch(), performance.now()];
      const copy = await copied(image, `${this.#directory}/committed.${image.format}`);
      if (epoch() !== last) throw new Error('a checkpoint was committed while the image was copied');
      return { copy, copyMs: performance.now() - began };
    } finally {
      witness.goOn();
    }
  }

  async #serve(): Promise<void> {
    await Promise.all([this.#sql.getsOn(ANSWERS, PATIENCE_MS), this.#redis.getsOn(ANSWERS, PATIENCE_MS)]);
    this.#load?.check();
  }

  /**
   * By the server's own word; resolves to how long that took, milliseconds. What it reads, it reads from its disk; the load
   * makes a pause, for its processor is a slow one.
   */
  async #checkServer(): Promise<number> {
    const began = performance.now();
    const [shell, load] = [this.#shell, this.#load];
    if (!shell || !load) throw new Error('not all is at work yet');
    await load.pause();
    try {
      await checkServer(shell, this.#sql, this.#redis);
    } finally {
      load.goOn();
    }
    load.check();
    return performance.now() - began;
  }
}

/** Octets of the disk, by the report of whoever brought a standby to its first checkpoint, after so many others. */
async function resent({ synchronisations }: ClusterHost, after: number): Promise<number> {
  await until('it is told how it was synchronised', () => synchronisations.length > after);
  const disks = synchronisations.at(-1)?.disks ?? [];
  return disks.reduce((sum, { doneBytes }) => sum + doneBytes, 0);
}

/** What a host has said on its cable so far. */
async function sentBytes(lab: Lab, host: string): Promise<number> {
  const [port] = JSON.parse(await lab.run('switch', 'ip', '-s', '-j', 'link', 'show', `port-${host}`)) as [
    { stats64: { rx: { bytes: number } } },
  ];
  return port.stats64.rx.bytes;
}

function percent(bytes: number): string {
  return `${((100 * bytes) / DISK_BYTES).toFixed(2)} %`;
}

function told({ victim, how, resentBytes, wireBytes, ...ms }: Round): string {
  return (
    `${victim} (${how}): silence ${ms.silenceMs.toFixed(0)} ms (the copy in it ${ms.copyMs.toFixed(0)} ms), checked in ` +
    `${ms.checkMs.toFixed(0)} ms, protected again ${ms.protectedAfterMs.toFixed(0)} ms after its return, ` +
    `${percent(resentBytes)} of the disk sent (${(wireBytes / 2 ** 20).toFixed(0)} MiB on the wire, memory and all)`
  );
}

function figures(values: readonly number[]): string {
  return `median ${quantile(values, 0.5).toFixed(0)} ms, most ${Math.max(...values).toFixed(0)} ms`;
}

export function summary({ seed, rounds, acknowledged: [sql, redis], fault }: ServerReport): string {
  const resent = rounds.map(({ resentBytes }) => resentBytes);
  return [
    `seed ${seed}: ${rounds.length} kills, ${sql} commits of SQL and ${redis} of Redis, in one connection each`,
    `silence ${figures(rounds.map(({ silenceMs }) => silenceMs))}, of which the copy ` +
      figures(rounds.map(({ copyMs }) => copyMs)),
    `protected again ${figures(rounds.map(({ protectedAfterMs }) => protectedAfterMs))} after the return`,
    `of the disk, sent again: median ${percent(quantile(resent, 0.5))}, most ${percent(Math.max(...resent))}`,
    fault === null ? 'no fault' : `FAULT: ${fault}`,
  ].join('\n');
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({
    options: { kills: { type: 'string', default: '20' }, seed: { type: 'string' } },
  });
  // What it made is removed when it exits, which a signal by itself is not.
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(130));
  const needed = await findNeeded(false);
  const files = await ensureServer(GUEST_ADDRESS);
  if (!needed || !files) process.exit(2);
  const report = await serverRounds(needed.etcd, files, {
    kills: Number(values.kills),
    ...(values.seed !== undefined && { seed: Number(values.seed) }),
    say: (text) => process.stdout.write(`${text}\n`),
  });
  process.exit(report.fault === null ? 0 : 1);
}
