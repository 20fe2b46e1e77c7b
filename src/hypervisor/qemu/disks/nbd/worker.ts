// The entry of the thread that serves the exports (see service.ts). It is a thread of its own because a guest's write
// waits for it, and with the write QEMU's monitor: whatever the agent is busy with, this one answers.

import { serveThread } from './serve-thread.js';
import { NbdService } from './service.js';

await serveThread((start, post) => new NbdService(start, post));
