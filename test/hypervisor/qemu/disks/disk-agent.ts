// An agent to be killed while it reads the disks of a QEMU that is not its own: disk-agent.js MONITOR

import { attachQemuSource } from '../../../../src/hypervisor/qemu/index.js';

const disks = { disk: { durability: 'relaxed' } } as const;
const source = await attachQemuSource({ name: 'agent', monitor: process.argv[2] ?? '', disks });
if (!source.disks) throw new Error('there are no disks');
await source.disks.attach();
await source.disks.keep();
await source.disks.copy({
  ...{ disk: 0, signal: new AbortController().signal },
  take: () => {
    process.stdout.write('there\n');
    return new Promise(() => undefined);
  },
});
