// Output commit, as a packet capture on the primary's tap shows it: no frame of an epoch before its acknowledgement.

import { expect } from 'chai';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { GuestFiles } from '../../../src/hypervisor/qemu/guest/build.js';
import { until } from '../../support/until.js';
import { ensureGuest, GUEST_TIMEOUT_MS } from '../../support/qemu.js';
import { ensureInstalled } from '../../support/tools.js';
import { ADDRESSES, childOf, Lab, needLab, SHARED, TAP } from './lab.js';
import { Agent, labCluster, makeRegisters } from './lab-agent.js';
import { DUMP, SLOW_PORT, type Observation } from './lab-observed.js';
import { framesOf, type Frame } from './lab-pcap.js';
import { times } from '../../support/length.js';

const OBSERVED = fileURLToPath(new URL('./lab-observed.js', import.meta.url));
const CLIENT = fileURLToPath(new URL('./lab-client.js', import.meta.url));
/** A file of the lab. */
const TAP_CAPTURE = 'tap.pcap';
const EPOCHS = times(150, 500);
const OPEN_EPOCHS = 20;
const CONNECTIONS = 8;
const VNET_HEADER_BYTES = 12;
const CHECKPOINT_MS = 10;
const BOOT_TIMEOUT_MS = 60_000;
const EPOCHS_TIMEOUT_MS = 120_000;

interface Run {
  /** As they left the guest's card, and as they came out at the tap. */
  readonly card: readonly Frame[];
  readonly tap: readonly Frame[];
  /** How many frames had left the card at the pause of each epoch. */
  readonly pauses: readonly number[];
  /** When the acknowledgement of each epoch was on its last way to the primary. */
  readonly acknowledgedAtMs: readonly number[];
  /** Up to here the gate worked by itself. */
  readonly closedEpochs: number;
}

interface Verdict {
  /** Frames of these epochs that came out, and those of them that came before their acknowledgement. */
  readonly frames: number;
  readonly early: number;
  readonly epochsWithFrames: number;
}

/** Looks at the frames of the epochs from `from` up to `to`. Fails if what came out is not what went in. */
function judge({ card, tap, pauses, acknowledgedAtMs }: Run, from: number, to: number): Verdict {
  let [frames, early, epochsWithFrames] = [0, 0, 0];
  for (let epoch = from; epoch < to; epoch++) {
    const first = epoch === 0 ? 0 : (pauses[epoch - 1] ?? NaN);
    const end = pauses[epoch] ?? NaN;
    const acknowledged = acknowledgedAtMs[epoch] ?? Infinity;
    if (end > first) epochsWithFrames++;
    for (let k = first; k < end; k++) {
      const sent = card[k];
      const seen = tap[k];
      if (!seen) continue; // not out yet at the end of the run
      if (!sent || !isSame(sent, seen))
        throw new Error(`frame ${k}, of epoch ${epoch}, is not what the card sent`);
      frames++;
      if (seen.atMs < acknowledged) early++;
    }
  }
  return { frames, early, epochsWithFrames };
}

/** QEMU's dump may have the header in front that virtio-net gives each frame, which a tap takes off. */
function isSame({ bytes: sent }: Frame, { bytes: seen }: Frame): boolean {
  const header = sent.length - seen.length;
  return (header === 0 || header === VNET_HEADER_BYTES) && sent.subarray(header).equals(seen);
}

async function capture(files: GuestFiles): Promise<Run> {
  const lab = await Lab.open();
  try {
    const pauses: number[] = [];
    const acknowledgedAtMs: number[] = [];
    let started = false;
    let said = '';
    makeRegisters(lab);
    const cluster = { intervalMs: CHECKPOINT_MS };
    const file = lab.write('primary.yaml', JSON.stringify(labCluster(files, cluster)));
    const primary = lab.spawn(
      'primary',
      process.execPath,
      [OBSERVED, file],
      ['ignore', 'pipe', 'pipe', 'ipc'],
    );
    primary.stdout?.on('data', (bytes: Buffer) => (said += bytes.toString('latin1')));
    primary.stderr?.on('data', () => undefined);
    primary.on('message', (message) => {
      const observation = message as Observation;
      if (observation.kind === 'started') started = true;
      if (observation.kind === 'paused') pauses.push(observation.frames);
      if (observation.kind === 'acknowledging') {
        // One stream, from its first epoch on, none left out: the k-th pause is that of epoch k.
        expect(observation.epoch).to.equal(acknowledgedAtMs.length);
        acknowledgedAtMs.push(observation.atMs);
      }
    });
    await until('the guest is started', () => started, BOOT_TIMEOUT_MS);
    // Room for some thousand frames between two looks at them (-s octets each, -B KiB in all).
    const options = [
      ...['-Q', 'in', '--time-stamp-precision=nano', '--immediate-mode', '-s', '4096', '-B', '16384'],
      ...['-U', '-Z', 'root'],
    ];
    const watcher = lab.spawn(
      'primary',
      'tcpdump',
      ['-i', TAP, ...options, '-w', `${SHARED}/${TAP_CAPTURE}`],
      'pipe',
    );
    let watched = '';
    watcher.stderr?.on('data', (bytes: Buffer) => (watched += bytes.toString()));
    await until('the tap is watched', () => watched.includes('listening on'));
    const secondary = new Agent(lab, 'secondary', labCluster(files, { ...cluster, port: SLOW_PORT }));
    await until('the guest ticks', () => said.includes('tick 2 ok\n'), BOOT_TIMEOUT_MS);

    const client = lab.spawn(
      'client',
      process.execPath,
      [CLIENT, 'load', ADDRESSES.guest, String(CONNECTIONS)],
      ['ignore', 'ignore', 'inherit'],
    );
    // Not every epoch has frames: a reply may take the client and the guest longer than one.
    const withFrames = (): number =>
      acknowledgedAtMs.filter((_, k) => (pauses[k] ?? 0) > (pauses[k - 1] ?? 0)).length;
    await until(`${EPOCHS} epochs`, () => withFrames() > EPOCHS, EPOCHS_TIMEOUT_MS);
    const closedEpochs = acknowledgedAtMs.length;
    primary.send('open');
    const end = closedEpochs + OPEN_EPOCHS;
    await until(`${OPEN_EPOCHS} epochs`, () => acknowledgedAtMs.length >= end, EPOCHS_TIMEOUT_MS);
    expect(client.exitCode).to.equal(null);
    expect(secondary.count('failover')).to.equal(0);
    const watcherClosed = once(watcher, 'close');
    process.kill(childOf(watcher), 'SIGINT');
    await watcherClosed;
    expect(watched).to.match(/^0 packets dropped by kernel/m);
    return {
      ...{ pauses, acknowledgedAtMs, closedEpochs },
      card: framesOf(lab.read(DUMP)),
      tap: framesOf(lab.read(TAP_CAPTURE)),
    };
  } finally {
    await lab.close();
  }
}

describe('qemu: a packet capture on the primary’s tap', function () {
  let run: Run;
  before(async function () {
    await needLab(this);
    this.timeout(GUEST_TIMEOUT_MS + EPOCHS_TIMEOUT_MS);
    if ((await ensureInstalled('tcpdump', 'tcpdump')) === null) return this.skip();
    const files = await ensureGuest();
    if (!files) return this.skip();
    run = await capture(files);
  });

  it(`no frame of an epoch is there before its acknowledgement, over ${EPOCHS} epochs under load`, () => {
    // What came before the first was captured was said while nobody stood by.
    const { frames, early, epochsWithFrames } = judge(run, 1, run.closedEpochs);
    console.log(`      ${frames} frames of ${epochsWithFrames} epochs, ${early} of them early`);
    expect(early).to.equal(0);
    expect(epochsWithFrames).to.be.at.least(EPOCHS);
    // All of what is acknowledged came out, but for the last epoch's: its release may be under way.
    expect(run.tap.length).to.be.at.least(run.pauses[run.closedEpochs - 2] ?? Infinity);
    expect(frames).to.be.greaterThan(EPOCHS * 2);
  });

  it('with the filters open, it shows frames that came early', () => {
    const { frames, early } = judge(run, run.closedEpochs + 2, run.acknowledgedAtMs.length);
    console.log(`      ${frames} frames, ${early} of them early`);
    expect(early).to.be.greaterThan(frames / 2);
  });
});
