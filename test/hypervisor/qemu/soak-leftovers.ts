// What two agents of one host left when both had ended: processes, mounts, temporary files, memory.

import { readdirSync, readFileSync, readlinkSync, statfsSync } from 'node:fs';
import { allProcesses } from '../../support/processes.js';
import { type OneHost, TEMPORARY } from './one-host.js';

export function leftovers({ lab }: OneHost): string[] {
  const root = `/proc/${lab.pid}/root`;
  const processes = processesIn(lab.pid)
    .map((pid) => readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' ').trim())
    // Ours, but for the proxy between them.
    .filter((line) => /qemu-system|setpriv|\/dist\/src\//.test(line));
  const mounts = readFileSync(`/proc/${lab.pid}/mounts`, 'latin1')
    .split('\n')
    .filter((line) => /fuse|romulus/i.test(line));
  const { blocks, bfree, bsize } = statfsSync(`${root}/dev/shm`);
  const shared = (blocks - bfree) * bsize;
  return [
    ...processes,
    ...mounts,
    ...readdirSync(`${root}${TEMPORARY}`),
    ...(shared > 0 ? [`${shared} octets in /dev/shm`] : []),
  ];
}

/** Those in the lab's process namespace, seen from outside. */
function processesIn(lab: number): number[] {
  const namespaceOf = (pid: number): string => {
    try {
      return readlinkSync(`/proc/${pid}/ns/pid`);
    } catch {
      return ''; // it has just ended
    }
  };
  const ours = namespaceOf(lab);
  return allProcesses().filter((pid) => namespaceOf(pid) === ours);
}
