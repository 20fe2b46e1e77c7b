// A cluster at work, with a witness that stands still, as a program that somebody ends: it does nothing about it itself.
//
//   interrupted.js      says "at work"

import { fileURLToPath } from 'node:url';
import { Cluster, embeddedDomain, findNeeded } from './cluster.js';

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const needed = await findNeeded(false);
  if (!needed) throw new Error('there is no etcd');
  const cluster = await Cluster.open({ etcd: needed.etcd, domains: [embeddedDomain()] });
  await cluster.start();
  await cluster.untilProtected();
  await cluster.witness.stop();
  process.stdout.write('at work\n');
}
