// An agent to be killed while it reads the disks of a QEMU that is not its own: disk-agent.js MONITOR

import { attachQemuSource } from '../../../../src/hypervisor/qemu/index.js';

const source = await attachQemuSource({ name: 'agent', monitor: process.argv[2] ?? '' });
const { disks } = source;
if (!disks) throw new Error('there are no disks');
await disks.attach();
await disks.keep();
await disks.copy({
  ...{ disk: 0, signal: new AbortController().signal },
  take: () => {
    process.stdout.write('there\n');
    return new Promise(() => undefined);
  },
});
