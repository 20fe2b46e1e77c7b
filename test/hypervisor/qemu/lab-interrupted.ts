// A lab with a pair at work in it, as a program that somebody ends: it does nothing about it itself.
//
//   lab-interrupted.js       says "built" (the lab stands), then "at work" (the guest is protected)

import { fileURLToPath } from 'node:url';
import { until } from '../../support/until.js';
import { ensureGuest } from '../../support/qemu.js';
import { Lab } from './lab.js';
import { Agent, labCluster, makeRegisters } from './lab-agent.js';

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const files = await ensureGuest();
  if (!files) throw new Error('there is no guest');
  const lab = await Lab.open();
  process.stdout.write('built\n');
  makeRegisters(lab);
  const cluster = labCluster(files, { intervalMs: 20 });
  const primary = new Agent(lab, 'primary', cluster);
  await until('the primary listens', () => primary.last('listening') !== undefined, 60_000);
  const secondary = new Agent(lab, 'secondary', cluster);
  await until('checkpoints', () => secondary.count('commit') > 2, 60_000);
  process.stdout.write('at work\n');
}
