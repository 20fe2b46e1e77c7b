// What the process that serves guest RAM was given, besides 0 (a line: begin) and 2 (why it ended).

/** /dev/fuse. */
export const DEVICE_FD = 3;
/** The image of RAM, a file in memory. */
export const IMAGE_FD = 4;
/** The log of writes (write-log.ts). */
export const LOG_FD = 5;
/** Pages to be stored (store.ts). */
export const SLAB_FD = 6;
/** A socket: orders to store them, and answers. */
export const ORDERS_FD = 7;
