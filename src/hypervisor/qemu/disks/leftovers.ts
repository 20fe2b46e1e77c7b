// What an agent before us, which died, has left in the block layer of a QEMU that lives: mirrors into exports that nobody
// serves any more (QEMU ends each when its guest writes), and exports that nobody reads.

import type { QmpClient } from '../monitor/qmp.js';
import { listOf } from './find.js';
import { endMirror } from './mirror.js';
import { OURS, mirrorIndexOf, mirrorNames } from './names.js';
import type { InPause } from './qemu-disks.js';
import { removeExport } from './reader.js';

/** Nothing is touched, and the guest not stopped, where nothing was left. @throws HypervisorError */
export async function removeLeftovers(qmp: QmpClient, inPause: InPause): Promise<void> {
  const [nodes, jobs, exports] = await Promise.all([
    listOf(qmp, 'query-named-block-nodes', { flat: true }),
    listOf(qmp, 'query-block-jobs'),
    listOf(qmp, 'query-block-exports'),
  ]);
  const ours = exports.map(({ id }) => String(id)).filter((id) => id.startsWith(OURS));
  for (const id of ours) await removeExport(qmp, id);
  if (ours.length > 0 && ours.length === exports.length) await qmp.execute('nbd-server-stop');
  const names = [...nodes.map((node) => node['node-name']), ...jobs.map(({ device }) => device)];
  const left = new Set(names.map((name) => mirrorIndexOf(String(name))).filter((index) => index !== null));
  if (left.size === 0) return;
  await inPause(async () => {
    for (const index of left) await endMirror(qmp, mirrorNames(index));
  });
}
