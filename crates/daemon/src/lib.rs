//! Workers, publish and retire, the control socket.
