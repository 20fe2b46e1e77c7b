// What an agent which died has left in the block layer of a QEMU that lives: mirrors into exports that nobody serves any
// more, exports that nobody reads, and flushes that are switched off. Its guard removes it, or else whoever attaches next.

import type { QmpClient } from '../monitor/qmp.js';
import { listOf } from './answers.js';
import { areMarked, switchOnMarked } from './durability.js';
import { removeExports } from './exports-left.js';
import { endMirror, type InPause } from './mirror.js';
import { mirrorIndexOf, mirrorNames } from './names.js';

/** Nothing is touched, and the guest not stopped, where nothing was left. @throws HypervisorError */
export async function removeLeftovers(qmp: QmpClient, inPause: InPause): Promise<void> {
  await removeExports(qmp);
  await removeMirrors(qmp, inPause);
}

/** And what they had switched off is on again. Nothing is touched where nothing was left. @throws HypervisorError */
export async function removeMirrors(qmp: QmpClient, inPause: InPause): Promise<void> {
  const [nodes, jobs] = await Promise.all([
    listOf(qmp, 'query-named-block-nodes', { flat: true }),
    listOf(qmp, 'query-block-jobs'),
  ]);
  const names = [...nodes.map((node) => node['node-name']), ...jobs.map(({ device }) => device)];
  const left = new Set(names.map((name) => mirrorIndexOf(String(name))).filter((index) => index !== null));
  if (left.size === 0 && !(await areMarked(qmp))) return;
  await inPause(async () => {
    for (const index of left) await endMirror(qmp, mirrorNames(index));
    await switchOnMarked(qmp);
  });
}
