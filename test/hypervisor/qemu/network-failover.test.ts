// Three hosts, a guest on a tap, one TCP connection to it, and the primary's agent and QEMU killed under it: what the
// client sees is a pause. Twenty times.

import { rmSync, symlinkSync } from 'node:fs';
import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import type { GuestFiles } from '../../../src/hypervisor/qemu/guest/build.js';
import type { FailoverCompleted } from '../../../src/report/reports.js';
import { monotonicMs } from '../../../src/flow/clock.js';
import { until } from '../../support/until.js';
import { ensureGuest, GUEST_TIMEOUT_MS } from '../../support/qemu.js';
import { ADDRESSES, Lab, needLab, TAP } from './lab.js';
import { successiveTicksOf, ticksOf } from '../support.js';
import { Counter } from './lab-counter.js';
import { Agent, CONSOLE_TAP, GUEST_MAC, labCluster, makeRegisters, REGISTERS } from './lab-agent.js';
import { times } from '../../support/length.js';

const ROUNDS = times(5, 20);
/** Increments after the failover that are waited for. */
const INCREMENTS = 100;
/** And ticks, at least: the first line may have been begun before. */
const TICKS = 3;
const BOOT_TIMEOUT_MS = 60_000;
const CHECKPOINT_MS = 20;
/** Of the other side, that counts as its death. */
const SILENCE_MS = 2000;
/** The moment of the kill lies within so much after the client's first increments. */
const KILL_WITHIN_MS = 500;
const WAY = 'way';

interface Round {
  readonly silenceMs: number;
  /** From the kill to the guest running on the secondary. */
  readonly downMs: number;
  readonly takeoverMs: number;
}

interface Pair {
  readonly lab: Lab;
  readonly primary: Agent;
  readonly secondary: Agent;
  /** Counting already. */
  readonly client: Counter;
}

async function withPair<T>(
  files: GuestFiles,
  timeoutMs: number,
  use: (pair: Pair) => Promise<T>,
): Promise<T> {
  const lab = await Lab.open();
  try {
    makeRegisters(lab);
    // The primary's way to the witness, which can be taken away.
    symlinkSync(REGISTERS, lab.outside(WAY));
    const cluster = { intervalMs: CHECKPOINT_MS, timeoutMs };
    const primary = new Agent(lab, 'primary', labCluster(files, { ...cluster, registers: WAY }));
    await until('the primary listens', () => primary.last('listening') !== undefined, BOOT_TIMEOUT_MS);
    const secondary = new Agent(lab, 'secondary', labCluster(files, cluster));
    await until('the guest ticks', () => primary.console.includes('tick 2 ok\n'), BOOT_TIMEOUT_MS);
    const isProtected = () => primary.last('transition')?.report.link === 'replicating';
    await until('it is protected', isProtected, BOOT_TIMEOUT_MS);
    const client = new Counter(lab);
    await client.reach(5, BOOT_TIMEOUT_MS);
    return await use({ lab, primary, secondary, client });
  } finally {
    await lab.close();
  }
}

/** The guest goes on where the last checkpoint left it, well, and the world has heard nothing that is not so. */
async function checkConsole({ lab, primary, secondary }: Pair): Promise<FailoverCompleted> {
  await until('ticks', () => secondary.console.split('\n').length > TICKS, BOOT_TIMEOUT_MS);
  const end = secondary.last('failover')?.event;
  if (end?.phase !== 'completed') throw new Error(`no failover: ${JSON.stringify(secondary.log)}`);
  const commit = secondary.messages.findLast(
    (message) => message.kind === 'commit' && message.report.epoch === end.epoch,
  );
  if (commit?.kind !== 'commit') throw new Error('the checkpoint was not reported');
  const committed = lab.read(CONSOLE_TAP).subarray(0, commit.report.outputBytes).toString('latin1');
  const ticks = successiveTicksOf(committed + secondary.console);
  expect(ticks[0]).to.equal(1);
  expect(ticks.length).to.be.greaterThan(ticksOf(committed).length + TICKS - 2);
  expect(committed.startsWith(primary.console), 'nothing was let out that was not committed').to.equal(true);
  return end;
}

function killOnce(files: GuestFiles): Promise<Round> {
  return withPair(files, 5000, async (pair) => {
    const { lab, primary, client } = pair;
    // The agent first, or its QEMU.
    const victims = [primary.pid, primary.qemu];
    if (Math.random() < 0.5) victims.reverse();
    await sleep(Math.random() * KILL_WITHIN_MS);
    const killedAt = monotonicMs();
    for (const pid of victims) process.kill(pid, 'SIGKILL');
    const before = client.replies.length;
    await primary.closed();
    await client.reach(before + INCREMENTS, BOOT_TIMEOUT_MS);
    const end = await checkConsole(pair);
    expect(await lab.run('switch', 'bridge', 'fdb', 'show', 'br', 'switch')).to.match(
      new RegExp(`^${GUEST_MAC} dev port-secondary `, 'm'),
    );
    return {
      silenceMs: client.longestSilenceMs,
      downMs: end.atMs - killedAt,
      takeoverMs: end.takeoverSeconds * 1000,
    };
  });
}

function figures(values: readonly number[]): string {
  const sorted = [...values].sort((a, b) => a - b);
  const median = sorted[Math.floor(sorted.length / 2)] ?? NaN;
  return `median ${median.toFixed(0)} ms, most ${(sorted.at(-1) ?? NaN).toFixed(0)} ms`;
}

describe('qemu: three hosts', function () {
  let files: GuestFiles;
  before(async function () {
    await needLab(this);
    this.timeout(GUEST_TIMEOUT_MS);
    const made = await ensureGuest();
    if (!made) return this.skip();
    files = made;
  });

  it(`the primary is killed ${ROUNDS} times, and its client’s one connection goes on`, async function () {
    this.timeout(ROUNDS * BOOT_TIMEOUT_MS);
    const rounds: Round[] = [];
    for (let round = 0; round < ROUNDS; round++) rounds.push(await killOnce(files));
    console.log(
      `      longest silence of the client: ${figures(rounds.map(({ silenceMs }) => silenceMs))}\n` +
        `      from SIGKILL to running: ${figures(rounds.map(({ downMs }) => downMs))}, ` +
        `of it taking over: ${figures(rounds.map(({ takeoverMs }) => takeoverMs))}`,
    );
  });

  it('the primary is cut off and lives: it is not heard of again, and is fenced when the way is free', async function () {
    this.timeout(2 * BOOT_TIMEOUT_MS);
    await withPair(files, SILENCE_MS, async (pair) => {
      const { lab, primary, secondary, client } = pair;
      // The agents only: both guests stay on the one network.
      const way = ['blackhole', ADDRESSES.secondary];
      rmSync(lab.outside(WAY));
      await lab.run('primary', 'ip', 'route', 'add', ...way);
      await until('failover', () => secondary.last('failover')?.event.phase === 'completed', BOOT_TIMEOUT_MS);
      const framesOut = () => lab.run('primary', 'cat', `/sys/class/net/${TAP}/statistics/rx_packets`);
      const before = await framesOut();
      await client.reach(client.replies.length + INCREMENTS, BOOT_TIMEOUT_MS);
      expect((await checkConsole(pair)).reason).to.equal('HEARTBEAT_TIMEOUT');
      expect(primary.last('transition')?.report.role).to.equal('primary');
      await lab.run('primary', 'ip', 'route', 'del', ...way);
      symlinkSync(REGISTERS, lab.outside(WAY));
      const isFenced = () => primary.said('fenced, down') !== undefined;
      await until('it is fenced', isFenced, BOOT_TIMEOUT_MS);
      await client.reach(client.replies.length + INCREMENTS, BOOT_TIMEOUT_MS);
      expect(await framesOut()).to.equal(before);
      console.log(`      longest silence of the client: ${client.longestSilenceMs} ms`);
    });
  });
});
