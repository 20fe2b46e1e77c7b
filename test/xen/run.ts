import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { onInterruption } from '../../src/cli/signals.js';
import { readFixture } from '../fixtures/xen.js';
import { ensureQemu, unpackDebian } from './debian.js';
import { buildDom0 } from './dom0.js';
import { Machine } from './machine.js';

const interruption = onInterruption();
const { signal } = interruption;
const scratch = await mkdtemp(path.join(os.tmpdir(), 'romulus-xen-'));
try {
  console.time('t');
  const qemu = await ensureQemu(signal);
  const debian = await unpackDebian(scratch, signal);
  console.timeLog('t', 'unpacked');
  const images = new Map(['pv-save', 'hvm-save'].map((name) => [name, readFixture(name)]));
  const boot = await buildDom0(debian, images, scratch);
  console.timeLog('t', 'built');
  const machine = await Machine.boot(qemu, boot, scratch, signal);
  console.timeLog('t', 'booted');
  try {
    for (const command of process.argv.slice(2)) {
      console.log(command, await machine.run(command, 60_000, signal).catch((e: unknown) => String(e)));
      console.timeLog('t', 'ran');
    }
  } finally {
    await machine.end();
  }
} finally {
  interruption.dispose();
  await rm(scratch, { recursive: true, force: true });
}
