// npm run test:xen: real Xen restores images that Romulus wrote, and their guests have to live on.
//
//   Debian's packages ─▶ dom0 ─┐
//   fixtures ─▶ Romulus ─▶ images ─▶ machine boots ─▶ per image: xl restore, the guest's console, xl destroy
//
// Exit status: 0 all live on, or SKIPPED, with the reason; 1 some do not; 130 interrupted.

import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ExitCode } from '../../src/cli/exit-codes.js';
import { onInterruption } from '../../src/cli/signals.js';
import { ensureQemu, LabUnavailableError, unpackDebian } from './debian.js';
import { buildDom0 } from './dom0.js';
import { damaged, type LabImage, writeImages } from './images.js';
import { judgeConsole, type Verdict } from './judge.js';
import { Machine } from './machine.js';

/** All in all. */
const LIMIT_MS = 300_000;
const COMMAND_TIMEOUT_MS = 60_000;
const TICKS_TIMEOUT_MS = 30_000;
const POLL_MS = 300;

const interruption = onInterruption();
const signal = AbortSignal.any([interruption.signal, AbortSignal.timeout(LIMIT_MS)]);
const started = performance.now();

try {
  process.exitCode = (await testInScratch()) ? ExitCode.OK : ExitCode.FAILED;
} catch (error) {
  if (interruption.signal.aborted) {
    process.exitCode = ExitCode.INTERRUPTED;
  } else if (error instanceof LabUnavailableError) {
    const line = '!'.repeat(100);
    console.log(`${line}\nSKIPPED: real Xen has judged nothing. ${error.message}\n${line}`);
  } else {
    throw signal.aborted ? new Error(`not done within ${LIMIT_MS / 1000} s`, { cause: error }) : error;
  }
} finally {
  interruption.dispose();
}

async function testInScratch(): Promise<boolean> {
  const scratch = await mkdtemp(path.join(os.tmpdir(), 'romulus-xen-'));
  try {
    const qemu = await ensureQemu(signal);
    const debian = await unpackDebian(scratch, signal);
    say(`Debian's packages are unpacked, dom0's kernel is ${debian.kernelVersion}`);
    const images = await writeImages(scratch, signal);
    say(`Romulus has written ${images.length} images`);
    const [first] = images;
    if (first === undefined) throw new Error('there is no image');
    // A judge that cannot condemn is none: this one has to fail.
    const control = damaged(first);
    const files = new Map([...images, control].map((image, index) => [`${index}`, image.octets]));
    const boot = await buildDom0(debian, files, scratch);
    const machine = await Machine.boot(qemu, boot, scratch, signal);
    say('Xen and its toolstack are up');
    try {
      let alive = 0;
      for (const [index, image] of images.entries()) {
        const verdict = await tryImage(machine, `/images/${index}`, image);
        alive += verdict.kind === 'alive' ? 1 : 0;
        report(image, verdict);
      }
      const verdict = await tryImage(machine, `/images/${images.length}`, control);
      const condemned = verdict.kind === 'wrong' && verdict.why.includes('BAD');
      report(control, verdict);
      say(`${alive} of ${images.length} live on; the damaged one is ${condemned ? '' : 'NOT '}found out`);
      return alive === images.length && condemned;
    } finally {
      await machine.end();
    }
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

async function tryImage(machine: Machine, file: string, { domain, lastTick }: LabImage): Promise<Verdict> {
  const run = (command: string) => machine.run(command, COMMAND_TIMEOUT_MS, signal);
  const log = `/var/log/xen/console/guest-${domain}.log`;
  // -e: no process stays behind to wait for the domain's end.
  const restored = await run(`xl restore -e ${file}`);
  try {
    if (restored.status !== 0) return { kind: 'wrong', why: `xl restore failed:\n${restored.output}` };
    const deadline = performance.now() + TICKS_TIMEOUT_MS;
    for (;;) {
      const { output } = await run(`cat ${log}`);
      const verdict = judgeConsole(output, lastTick);
      if (verdict.kind !== 'waiting') return verdict;
      if (performance.now() > deadline) return { kind: 'wrong', why: `its console stands still:\n${output}` };
      await sleep(POLL_MS, undefined, { signal });
    }
  } finally {
    await run(`xl destroy ${domain}; rm -f ${log}`);
  }
}

function report({ name, domain }: LabImage, verdict: Verdict): void {
  const what = verdict.kind === 'alive' ? `TICK ${verdict.ticks.join(', ')} OK` : verdict.kind;
  say(`${name}: ${domain}: ${what}${verdict.kind === 'wrong' ? `: ${verdict.why}` : ''}`);
}

function say(line: string): void {
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  console.log(`${seconds.padStart(6)} s  ${line}`);
}
